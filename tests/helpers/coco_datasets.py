"""Datasets in COCO's formats, loaded for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import load_reader_dataset


def load_coco_panoptic(name: str, json: Path, masks: Path, images: Path | None = None, **options: Any) -> Dataset:
    if images is not None:
        options["images"] = images
    return load_reader_dataset(name, "coco-panoptic", {"json": json, "masks": masks, **options})


def load_coco_instances(name: str, json: Path, images: Path) -> Dataset:
    return load_reader_dataset(name, "coco-instances", {"json": json, "images": images})
