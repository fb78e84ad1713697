"""Datasets in COCO's formats, loaded for training."""

from __future__ import annotations

from pathlib import Path

from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import load_reader_dataset


def load_coco_panoptic(
    name: str, json: Path, masks: Path, images: Path | None = None, instances_json: Path | None = None
) -> Dataset:
    options = {"json": json, "masks": masks, "images": images, "instances_json": instances_json}
    given = {key: path for key, path in options.items() if path is not None}
    return load_reader_dataset(name, "coco-panoptic", given)


def load_coco_instances(name: str, json: Path, images: Path) -> Dataset:
    return load_reader_dataset(name, "coco-instances", {"json": json, "images": images})
