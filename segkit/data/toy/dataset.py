"""The toy scenes as a dataset on disk in COCO's format: training images that need no download."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkit.data.toy.scenes import CATEGORIES, draw_scene
from segkit.formats import coco, derive, png
from segkit.formats.coco import PanopticWriter
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_output_folder, convert_write_errors, renaming
from segkit.utils.leftovers import temporary_path

__all__ = ["CATEGORIES", "draw_scene", "write_dataset"]

# The entries of a dataset. The JSON files are removed first and arrive last: a folder with a panoptic.json is complete
# at every moment.
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
    """Write the scenes 0..images-1 of a series.

    The folder gets images/000000000001.png, ..., panoptic/000000000001.png, ..., panoptic.json, and instances.json with
    the same things. Scene i has image_id i + 1. Its bytes depend on seed, i and size_hw, not on the number of images.
    Everything appears at the end; after an error nothing does.

    Args:
        output: the folder.
        images: the number of images, at least 1.
        seed: the series; another split is another seed.
        size_hw: height and width of the images in pixels.
        overwrite: replace these files in a folder that is not empty; other files stay.
        progress: called with (done, total) after each image.

    Returns:
        The absolute path of the folder.

    Raises:
        DatasetError: `output` is a file, or a folder that is not empty without `overwrite`, or cannot be written.
        ValueError: there is less than one image, or `draw_scene` refuses its arguments.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    output = Path(output).resolve()
    _check_free(output, overwrite)
    parent = output if output.exists() else output.parent
    with convert_write_errors(output), temporary_path(parent) as scratch:
        written = scratch / "written"
        with renaming(written, output):
            _write(written, images, seed, size_hw, progress)
        _install(written, output, scratch / "replaced")
    return output


def _check_free(output: Path, overwrite: bool) -> None:
    check_output_folder(output)
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
            pixels, segmentation = draw_scene(seed, image_id - 1, size_hw)
            file_name = f"{image_id:012}.png"
            png.write(folder / "images" / file_name, pixels)
            writer.add(image_id, file_name, segmentation)
            annotations += derive.build_coco_annotations(image_id, segmentation)
            entries.append({"id": image_id, "file_name": file_name, "height": size_hw[0], "width": size_hw[1]})
            if progress is not None:
                progress(image_id, images)
    coco.write_instances(folder / "instances.json", entries, annotations, CATEGORIES)


def _install(written: Path, output: Path, replaced: Path) -> None:
    """Move the files by renaming: the whole folder if `output` does not exist, else its entries one by one."""
    if not output.exists():
        os.replace(written, output)
        return
    replaced.mkdir()
    for name in ENTRIES:
        if os.path.lexists(output / name):
            os.replace(output / name, replaced / name)
    for name in reversed(ENTRIES):
        os.replace(written / name, output / name)
