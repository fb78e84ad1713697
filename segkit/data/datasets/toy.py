"""The toy scenes, written when they are first used: a dataset that needs no download."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import load_reader_dataset
from segkit.data.toy import dataset as toy

SPLITS = {"train": (1000, 1), "val": (100, 2)}  # split: (images, seed)


def register(root: Path) -> None:
    """Register segkit_toy_{train,val}.

    Args:
        root: folder of segkit_toy/, which holds the scenes once they are written.
    """
    for split in SPLITS:
        name = f"segkit_toy_{split}"
        register_dataset(name, partial(_load, name, root / "segkit_toy" / split, split), toy.CATEGORIES)


def _load(name: str, folder: Path, split: str) -> Dataset:
    if not folder.exists():
        images, seed = SPLITS[split]
        try:
            toy.write_dataset(folder, images, seed)
        except OSError:  # another process has written the same files
            if not (folder / "panoptic.json").is_file():
                raise
    options = {"json": folder / "panoptic.json", "masks": folder / "panoptic", "images": folder / "images"}
    return load_reader_dataset(name, "coco-panoptic", options, categories=toy.CATEGORIES)
