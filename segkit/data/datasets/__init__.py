"""The datasets that segkit knows by name, one file each with a `register(root)`."""

from __future__ import annotations

import os
from pathlib import Path

from segkit.data.datasets import ade20k, cityscapes, coco, decathlon, label_maps, toy, voc


def dataset_root() -> Path:
    """The folder of datasets: $DETECTRON2_DATASETS, or `datasets`, as Detectron2 has it."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def register_datasets(root: Path | None = None) -> None:
    """Register every dataset below `root` (default: `dataset_root()`); no dataset is read, again is harmless."""
    for module in (coco, cityscapes, voc, ade20k, decathlon, label_maps, toy):
        module.register(root or dataset_root())
