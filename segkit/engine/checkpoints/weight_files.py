"""Weight files of every format in one form, that of Detectron2's checkpoints, and back into two formats."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from segkit.engine.checkpoints.bundle_weights import load_bundle, read_bundle_entries
from segkit.engine.checkpoints.finite import find_non_finite
from segkit.engine.checkpoints.footer import ChecksumWriter
from segkit.engine.checkpoints.safe_load import load_pickle, load_torch
from segkit.engine.checkpoints.safetensors_file import ENTRIES, dump_safetensors, load_safetensors
from segkit.structures import CategorySet
from segkit.utils.bundles import is_bundle
from segkit.utils.errors import CheckpointError, DatasetError
from segkit.utils.files import replacing
from segkit.utils.text import abbreviate

SAFETENSORS, TORCH = ".safetensors", ".pth"


def read_weight_file(path: str, *, check: bool = True) -> dict[str, Any]:
    """Read a weight file in the format that its suffix names: .safetensors, .segkit, .pkl, .pyth; others are torch's.

    Args:
        path: the file.
        check: see `load_torch`.

    Returns:
        The entries of the file; "model": name -> tensor or array.

    Raises:
        CheckpointError: the file cannot be read, or has no dict of tensors.
    """
    if path.endswith(SAFETENSORS):
        data = load_safetensors(path)
    elif is_bundle(path):
        data = load_bundle(path)
    elif path.endswith(".pkl"):
        data = _convert_zoo_file(load_pickle(path))
    else:
        data = load_torch(path, check=check)
        if path.endswith(".pyth"):
            data = _convert_pycls_file(data, path)
    if "model" not in data and isinstance(data.get("state_dict"), dict):  # of PyTorch Lightning
        data = {"model": data["state_dict"]}
    checkpoint = data if "model" in data else {"model": data}
    _require_weights(checkpoint["model"], path)
    return checkpoint


def read_segkit_entry(path: str) -> dict[str, Any] | None:
    """What segkit's training says of the weights: categories, meaning of the channels, plugins.

    Args:
        path: the file.

    Returns:
        The entry "segkit"; None for weights of another tool.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.endswith(SAFETENSORS):
        entry = load_safetensors(path, weights=False).get("segkit")
    elif is_bundle(path):
        entry = read_bundle_entries(path)["segkit"]
    else:
        entry = load_torch(path).get("segkit") if path.endswith(TORCH) else None
    return entry if isinstance(entry, dict) and "categories" in entry else None


def write_weight_file(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write weights without the state of a training.

    Args:
        path: the file: .safetensors or .pth.
        checkpoint: of `read_weight_file`.

    Raises:
        CheckpointError: another suffix, tensors with NaN, or the file cannot be written.
    """
    weights = {name: torch.as_tensor(weight) for name, weight in checkpoint["model"].items()}
    if names := find_non_finite(weights):
        raise CheckpointError(f"not written, because of NaN values in {len(names)} tensors: {abbreviate(names)}")
    content = {"model": weights, **{key: checkpoint[key] for key in ENTRIES if key in checkpoint}}

    def write(file: BinaryIO) -> None:
        if path.suffix == SAFETENSORS:
            file.write(dump_safetensors(content))
        else:
            write_torch(file, content)

    try:
        write_atomically(path, write)
    except ValueError as error:
        raise CheckpointError(str(error), where=path, remedy="write a .pth file") from error


def write_torch(file: BinaryIO, content: dict[str, Any], started: str = "", iteration: int | None = None) -> None:
    """Write what `torch.save` writes, and a footer.

    Args:
        file: binary file.
        content: plain data, see `to_plain_data`.
        started: see `Footer`.
        iteration: see `Footer`.
    """
    writer: Any = ChecksumWriter(file)
    torch.save(content, writer)
    writer.finish(started, iteration)


def write_atomically(target: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all; the content is flushed to the disk before the file takes its name.

    Args:
        target: the file.
        write: writes the content.

    Raises:
        CheckpointError: the disk is full, or the file cannot be written.
    """
    try:
        with replacing(target) as temporary, temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError, DatasetError) as error:  # torch's writer raises RuntimeError if the disk is full
        remedy = "free disk space, or name another OUTPUT_DIR"
        raise CheckpointError(f"cannot be written ({shorten(error)})", where=target, remedy=remedy) from error


def describe_weights(checkpoint: dict[str, Any], where: str) -> list[str]:
    """Say what a weight file holds.

    Args:
        checkpoint: of `read_weight_file`.
        where: the file, for messages.

    Returns:
        Lines: the tensors by the first part of their names, classes, plugins, iteration.

    Raises:
        DatasetError: the classes are invalid.
    """
    weights = checkpoint["model"]
    tensors: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for name, weight in weights.items():
        prefix = name.partition(".")[0]
        tensors[prefix] += 1
        numbers[prefix] += int(np.prod(weight.shape))
        types[str(weight.dtype).removeprefix("torch.")] += 1
    width = max([len("all"), *map(len, tensors)])
    rows = [("all", len(weights), numbers.total()), *((name, tensors[name], numbers[name]) for name in tensors)]
    lines = [f"{name:<{width}}  {count:>6} tensors  {size:>13,} numbers" for name, count, size in rows]
    lines[0] += f"  ({', '.join(f'{count} {name}' for name, count in types.most_common())})"
    entry = checkpoint.get("segkit")
    if isinstance(entry, dict) and "categories" in entry:
        categories = CategorySet.from_coco(entry["categories"], where).categories
        lines.append(f"classes: {len(categories)}: {abbreviate(category.name for category in categories)}")
        lines.append(f"semantic channels of things: {entry.get('thing_channels', 'not stated')}")
        lines += [f"plugins: {entry['plugins']}"] if entry.get("plugins") else []
    else:
        lines.append("classes: not stated; the config's dataset decides")
    if checkpoint.get("matching_heuristics"):
        lines.append(f"names of {checkpoint.get('__author__', 'another tool')}, matched by their ends")
    if "iteration" in checkpoint:
        lines.append(f"iteration: {checkpoint['iteration']}")
    return lines


def shorten(error: Exception) -> str:
    """An error of another package in a line.

    Args:
        error: the error.

    Returns:
        Its type and its text, cut.
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _convert_zoo_file(data: dict[str, Any]) -> dict[str, Any]:
    """Detectron2's own files are kept as they are; all others are taken for Caffe2's, without their momenta."""
    if "model" in data and ("__author__" in data or isinstance(data["model"], dict)):
        return data
    blobs = data.get("blobs", data)
    weights = {key: value for key, value in dict(blobs).items() if not str(key).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _convert_pycls_file(data: dict[str, Any], filename: str) -> dict[str, Any]:
    state = data.get("model_state")
    if not isinstance(state, dict):
        raise CheckpointError("expected a pycls checkpoint with 'model_state'", where=filename)
    weights = {key: value for key, value in state.items() if not str(key).endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}


def _require_weights(weights: Any, filename: str) -> None:
    entries = weights.items() if isinstance(weights, dict) else [("model", weights)]
    invalid = [f"{k} ({type(v).__name__})" for k, v in entries if not isinstance(v, (np.ndarray, torch.Tensor))]
    invalid += [f"{k!r} (a key)" for k, _ in entries if not isinstance(k, str)]
    if invalid:
        problem = f"expected a dict of weight tensors by name, got {len(invalid)} other entries: {abbreviate(invalid)}"
        remedy = "save the state dict alone: torch.save(model.state_dict(), 'weights.pth')"
        raise CheckpointError(problem, where=filename, remedy=remedy)
