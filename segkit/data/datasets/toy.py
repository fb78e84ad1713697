"""The toy scenes, written when they are first used: a dataset that needs no download."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_files
from segkit.data.toy import dataset as toy

SPLITS = {"train": (1000, 1), "val": (100, 2)}  # split: (images, seed)


def register(root: str | Path) -> None:
    """Register segkit_toy_{train,val}.

    Args:
        root: folder of segkit_toy/, which holds the scenes once they are written.
    """
    root = Path(root)
    for split in SPLITS:
        options = partial(_write, root / "segkit_toy" / split, split)
        register_files(f"segkit_toy_{split}", "coco-panoptic", options, None, toy.CATEGORIES, checks_categories=True)


def _write(folder: Path, split: str) -> dict[str, Path]:
    """Write the scenes, unless they exist, and return the options of their reader."""
    if not folder.exists():
        images, seed = SPLITS[split]
        try:
            toy.write_dataset(folder, images, seed)
        except OSError:  # another process has written the same files
            if not (folder / "panoptic.json").is_file():
                raise
    return {"json": folder / "panoptic.json", "masks": folder / "panoptic", "images": folder / "images"}
