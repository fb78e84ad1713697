"""The datasets that segkit knows by name, one file each with a function `register(root)`."""

from __future__ import annotations

from pathlib import Path

from segkit.data.catalog import dataset_root
from segkit.data.datasets import ade20k, cityscapes, coco, decathlon, label_maps, toy, voc

_default_root: Path | None = None  # `dataset_root()` at the last call of `register_datasets`


def register_datasets(root: str | Path | None = None) -> None:
    """Register every dataset by name; none is read.

    Args:
        root: folder of datasets; None: `dataset_root()`. The names then stay as they are if an earlier call has
            registered them and $DETECTRON2_DATASETS is the same.
    """
    global _default_root
    is_registered, _default_root = _default_root == dataset_root(), dataset_root()
    if root is None and is_registered:
        return
    for module in (coco, cityscapes, voc, ade20k, decathlon, label_maps, toy):
        module.register(dataset_root() if root is None else root)
