"""Weights as .safetensors: tensors and text, and nothing that could run. Classes are JSON in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from segkit.engine.checkpoints.footer import DAMAGED, DamagedFileError
from segkit.utils.errors import CheckpointError

KEY = "segkit"  # of the metadata
# Entries of a checkpoint that belong to its weights: classes, their last iteration, and how names are to be matched.
ENTRIES = ("segkit", "iteration", "matching_heuristics", "__author__")


def load_safetensors(path: str | Path, *, weights: bool = True) -> dict[str, Any]:
    """Read a .safetensors file.

    Args:
        path: the file.
        weights: read the tensors too.

    Returns:
        "model": name -> tensor on the CPU, empty without `weights`; and those of `ENTRIES` that the file has.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such file" if not path.exists() else "not a file", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            entries = json.loads((file.metadata() or {}).get(KEY, "{}"))
            model = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
    except Exception as error:  # the package has its own errors beside Python's
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DamagedFileError(f"not a readable .safetensors file ({cause})", where=path, remedy=DAMAGED) from error
    if not isinstance(entries, dict):
        raise DamagedFileError(f"expected a JSON object as metadata {KEY!r}", where=path, remedy=DAMAGED)
    return {"model": model, **{key: entries[key] for key in ENTRIES if key in entries}}


def dump_safetensors(checkpoint: dict[str, Any]) -> bytes:
    """The content of a .safetensors file.

    Args:
        checkpoint: "model": name -> dense tensor; `ENTRIES`; other entries are left out.

    Returns:
        The bytes. Tensors that share memory are written each.

    Raises:
        ValueError: an entry is no JSON, or a tensor has a type that the format lacks.
    """
    from safetensors.torch import save

    entries = {key: checkpoint[key] for key in ENTRIES if key in checkpoint}
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint["model"].items()
    }
    try:
        # Without entries it has one key alone: the package writes several in any order.
        return bytes(save(copies, {"format": "pt", **({KEY: json.dumps(entries)} if entries else {})}))
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot be written as .safetensors: {error}") from error
