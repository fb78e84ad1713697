"""The toy scenes as a dataset on disk: training images in COCO layout that need no download."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkit.data.toy.scenes import CATEGORIES, scene
from segkit.formats import coco, derive, png
from segkit.formats.coco import PanopticWriter
from segkit.utils.errors import DatasetError

__all__ = ["CATEGORIES", "scene", "write_dataset"]

# What a dataset consists of. The JSON files come first: they go first and arrive last, so that a folder with
# a panoptic.json is whole at every moment.
ENTRIES = ("panoptic.json", "instances.json", "panoptic", "images")


def write_dataset(
    output: str | Path,
    images: int,
    seed: int,
    size_hw: tuple[int, int] = (128, 128),
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write scenes 0..images-1 of the series `seed` to the folder `output` and return it.

    It holds images/000000000001.png, ..., panoptic/000000000001.png, ..., panoptic.json, and instances.json with the
    same things. Scene i has image_id i + 1; the bytes depend on seed, i and size_hw, not on the number of images. Other
    splits are other seeds. Everything appears at the end, or on an error nothing. progress(done, total) is called after
    each image.

    Raises DatasetError where `output` is a file, or a folder that is not empty and `overwrite` is False; with
    `overwrite` the entries named above are replaced and everything else in the folder stays. Raises ValueError for
    fewer than one image, and as `scene` does.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    output = Path(output).resolve()
    _check_free(output, overwrite)
    home = output if output.exists() else output.parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".toy-", dir=home) as scratch:
        made = Path(scratch) / "made"
        _write(made, images, seed, size_hw, progress)
        _install(made, output, Path(scratch) / "replaced")
    return output


def _check_free(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise DatasetError("expected a folder, this is a file", where=output, remedy="name another folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        remedy = "name another folder or pass --overwrite"
        raise DatasetError("expected an empty or missing folder, this one holds files", where=output, remedy=remedy)


def _write(
    folder: Path, images: int, seed: int, size_hw: tuple[int, int], progress: Callable[[int, int], object] | None
) -> None:
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", CATEGORIES) as writer:
        for image_id in range(1, images + 1):
            pixels, segmentation = scene(seed, image_id - 1, size_hw)
            file_name = f"{image_id:012}.png"
            png.write(folder / "images" / file_name, pixels)
            writer.add(image_id, file_name, segmentation)
            annotations += derive.build_coco_annotations(image_id, segmentation)
            entries.append({"id": image_id, "file_name": file_name, "height": size_hw[0], "width": size_hw[1]})
            if progress is not None:
                progress(image_id, images)
    coco.write_instances(folder / "instances.json", entries, annotations, CATEGORIES)


def _install(made: Path, output: Path, replaced: Path) -> None:
    """Renames only: the folder at once where there was none, else its entries one by one."""
    if not output.exists():
        os.replace(made, output)
        return
    replaced.mkdir()
    for name in ENTRIES:
        if os.path.lexists(output / name):
            os.replace(output / name, replaced / name)
    for name in reversed(ENTRIES):
        os.replace(made / name, output / name)
