"""What the results of `segkit predict` depend on: a run goes on in a folder only if all of it is equal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

BLOCK_BYTES = 1 << 20


def describe_run(model: Mapping[str, Any], names: Iterable[str], **options: Any) -> dict[str, Any]:
    """Describe a run without its model.

    Args:
        model: what describes the model, see `ImageModel.description`.
        names: what names the images, in their order.
        options: further values that JSON can hold; those that are None are left out.

    Returns:
        A dict that JSON can hold, with a checksum of the names.
    """
    return {
        **model,
        "images": hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
        **{name: option for name, option in options.items() if option is not None},
    }


def describe_weights(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a model by the file of its weights, which is all of it for a graph.

    Args:
        weights: a file, or an address.

    Returns:
        The checksum of the file as `weights`, or the address.
    """
    return {"weights": _compute_checksum(weights) if os.path.isfile(weights) else os.fspath(weights)}


def _compute_checksum(path: str | os.PathLike[str]) -> str:
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum.update(block)
    return checksum.hexdigest()
