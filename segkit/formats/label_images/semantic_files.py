"""Semantic label maps: folders of single-channel PNGs, and Detectron2's sem_seg_predictions.json."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.coco import tables as coco
from segkit.formats.coco.masks import fault_of
from segkit.formats.image_files import files_below
from segkit.structures import CategorySet, rle_to_mask, segmentation_to_rle
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

SUFFIX = ".png"
KINDS = {"greyscale", "palette"}
BIT_DEPTHS = (1, 2, 4, 8, 16)
GREY_STEP = {2: 85, 4: 17}  # by bit depth: what Pillow multiplies grey values by, to fill 0..255
NO_LABEL = -1

Labels = NDArray[np.uint8] | NDArray[np.uint16]
Masks = Mapping[int, Any]  # category_id -> COCO segmentation


def find(folder: str | Path, suffix: str = SUFFIX) -> dict[str, Path]:
    """The files in the folder and its sub-folders whose names end in `suffix`, sorted, by their path in the folder
    without the suffix (`city/name`); hidden files and folders are passed over.

    Raises DatasetError where there is no such folder or no such file.
    """
    root = Path(folder)
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise DatasetError("expected a folder of label PNGs, found none", where=root, remedy="check the path")
    names = [name for name in files_below(root, "") if name.endswith(suffix) and os.path.isfile(root / name)]
    if not names:
        remedy = "check the folder, and the suffix of its files"
        raise DatasetError(f"expected files whose names end in {suffix!r}, found none", where=root, remedy=remedy)
    return {name.removesuffix(suffix): root / name for name in names}


def read(path: str | Path) -> Labels:
    """(H, W) uint8 labels, or uint16 of a 16-bit file: the values of a greyscale PNG, the indices of a palette PNG.

    Raises DatasetError where the file is missing, truncated, no PNG, or has colours or transparency in place of labels.
    """
    path = Path(path)
    header = png.read_header(path)
    if header.kind not in KINDS:
        raise DatasetError(
            f"expected a greyscale or palette PNG whose values are labels, got {header.bit_depth}-bit {header.kind}",
            where=path,
            remedy="turn colours into labels; panoptic PNGs are read together with their JSON",
        )
    labels = np.array(png.open_image(path, None, KINDS, BIT_DEPTHS))
    if labels.dtype.itemsize > 1:
        return labels.astype(np.uint16)
    grey_step = GREY_STEP.get(header.bit_depth, 1) if header.kind == "greyscale" else 1
    return labels.astype(np.uint8) // np.uint8(grey_step) if grey_step > 1 else labels.astype(np.uint8, copy=False)


def write(path: str | Path, labels: NDArray[np.integer[Any]]) -> None:
    """Writes (H, W) labels as a greyscale PNG of 8 bits, or 16 where a label needs them, whole or not at all.

    Raises ValueError where a label is outside 0..65535, or there is no pixel.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"labels must be in 0..{np.iinfo(np.uint16).max}, got {low}..{high}")
    png.write(Path(path), labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16))


def read_classes(path: str | Path) -> CategorySet | tuple[str, ...]:
    """The classes in a JSON: names of the labels 0, 1, ... (a list of strings), or categories with their ids (a list of
    objects, or any COCO JSON with `categories`); those without `isthing` are all things.

    Raises DatasetError where the file is missing or something else.
    """
    path = Path(path)
    content = files.load_json(path)
    entries = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        got = reprlib.repr(entries if isinstance(content, dict) else content)
        raise DatasetError(f"expected a list of names or `categories`, got {got}", where=path)
    if all(type(entry) is str for entry in entries):
        return tuple(entries)
    table = json_fields.check_objects(entries, "`categories`", path)
    return coco.categories_of({"categories": table}, path, all_things=any("isthing" not in entry for entry in table))


def read_results(path: str | Path, on_issue: Callable[[DatasetError], None]) -> Mapping[str, Masks]:
    """Detectron2's sem_seg_predictions.json: by file_name of the image, by category_id, the class's mask.

    The masks are not decoded; the file is in memory as a whole. tell: gets the errors of single entries, which are then
    left out. Raises DatasetError where the file is missing, not JSON, or of another kind.
    """
    path = Path(path)
    content = files.load_json(path)
    if type(content) is not list:
        expected = "Detectron2's list of {file_name, category_id, segmentation}"
        raise DatasetError(f"expected {expected}, got a {type(content).__name__}", where=path)
    results: dict[str, dict[int, Any]] = {}
    for index, entry in enumerate(json_fields.check_objects(content, "the list", path)):
        _refuse_instances(entry, path)
        try:
            where = f"{path}, entry {index}"
            name: str = json_fields.get_field(entry, "file_name", json_fields.TEXT, where)
            category_id: int = json_fields.get_field(entry, "category_id", json_fields.INTEGER, where)
            segmentation = json_fields.get_field(entry, "segmentation", json_fields.OBJECT, where)
            if category_id in results.setdefault(name, {}):
                raise DatasetError(f"expected one mask per class of {name}, got two of {category_id}", where=where)
            results[name][category_id] = segmentation
        except DatasetError as error:
            on_issue(error)
    return results


def map_of(
    masks: Masks, channel_of: Mapping[int, int], size_hw: tuple[int, int], where: object
) -> NDArray[np.integer[Any]]:
    """(H, W) int32 channels, `channel_of[category_id]` of the mask that each pixel lies in.

    Raises DatasetError where a category has no channel, a mask is not sound or not of size_hw, or a pixel is in no mask
    or in two.
    """
    labels = np.full(size_hw, NO_LABEL, dtype=np.int32, order="F")
    covered_px = 0
    for category_id, segmentation in masks.items():
        if category_id not in channel_of:
            known = abbreviate(sorted(channel_of))
            raise DatasetError(f"expected a category_id among {known}, got {category_id}", where=where)
        if fault := fault_of(segmentation, size_hw):
            raise DatasetError(fault, where=f"{where}, category {category_id}")
        mask = rle_to_mask(segmentation_to_rle(segmentation, size_hw))
        covered_px += np.count_nonzero(mask)
        labels[mask] = channel_of[category_id]
    bare_px = np.count_nonzero(labels == NO_LABEL)
    if bare_px or covered_px > labels.size:
        got = f"{bare_px} pixels are in none" if bare_px else f"{covered_px - labels.size} pixels are in a second one"
        raise DatasetError(f"expected every pixel in one class's mask, {got}", where=where)
    return labels


def _refuse_instances(entry: Entry, path: Path) -> None:
    if "image_id" in entry and "file_name" not in entry:
        expected = "Detectron2's sem_seg_predictions.json is expected, whose entries have file_name"
        raise DatasetError(f"this is a list of instance results (they have image_id), {expected}", where=path)
