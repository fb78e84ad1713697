"""The datasets that segkit knows by name, one file each with a function `register(root)`."""

from __future__ import annotations

import os
from pathlib import Path

from segkit.data.datasets import ade20k, cityscapes, coco, decathlon, label_maps, toy, voc


def dataset_root() -> Path:
    """Get the folder of datasets, as Detectron2 does.

    Returns:
        $DETECTRON2_DATASETS, or `datasets`.
    """
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def register_datasets(root: Path | None = None) -> None:
    """Register every dataset by name; none is read, and a second call changes nothing.

    Args:
        root: folder of datasets; None: `dataset_root()`.
    """
    for module in (coco, cityscapes, voc, ade20k, decathlon, label_maps, toy):
        module.register(root or dataset_root())
