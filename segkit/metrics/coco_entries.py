"""COCO annotations and results, checked before pycocotools sees them: it scores nonsense silently, or hangs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from segkit.structures import CategorySet, DatasetError, segmentation_to_rle

Entry = dict[str, Any]
BITS_PER_CHAR = 5  # pycocotools' rleToString: 5 bits of a run per character, bit 5 = more follow, characters from "0"
MORE = 1 << BITS_PER_CHAR
SIGN = 1 << (BITS_PER_CHAR - 1)
MAX_CHARS_PER_RUN = 7  # what a 32-bit run can need


def read_entry(
    entry: Mapping[str, Any],
    number: str,
    iou_types: Collection[str],
    categories: CategorySet,
    size_hw: tuple[int, int],
    where: str,
) -> Entry:
    """A copy of what scoring needs of a COCO annotation (`number` "area") or result (`number` "score").

    Keeps category_id (of the dataset), iscrowd (0 or 1, default 0), the finite `number`, for "bbox" the box
    [x, y, width, height] in pixels as floats, for "segm" the compressed RLE of the image's size.
    Raises DatasetError, naming `where`, where one of these is missing or wrong.
    """
    if not isinstance(entry, Mapping):
        raise DatasetError(f"expected an object with category_id, got {type(entry).__name__}", where=where)
    category_id = entry.get("category_id")
    if not isinstance(category_id, Integral) or category_id not in categories:
        known = [category.category_id for category in categories.categories]
        raise DatasetError(f"expected a category_id out of {known}, got {category_id!r}", where=where)
    if entry.get("iscrowd", 0) not in (0, 1):
        raise DatasetError(f"expected iscrowd to be 0 or 1, got {entry['iscrowd']!r}", where=where)
    if not _is_finite(entry.get(number)):
        raise DatasetError(f"expected a finite {number}, got {entry.get(number)!r}", where=where)
    kept: Entry = {"category_id": int(category_id), "iscrowd": int(entry.get("iscrowd", 0))}
    kept[number] = float(entry[number])
    if "bbox" in iou_types:
        kept["bbox"] = _box(entry.get("bbox"), where)
    if "segm" in iou_types:
        kept["segmentation"] = _rle(entry.get("segmentation"), size_hw, where)
    return kept


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _box(box: Any, where: str) -> list[float]:
    values = box.tolist() if isinstance(box, np.ndarray) else box
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(_is_finite(value) for value in values):
        raise DatasetError(f"expected bbox [x, y, width, height] of four finite numbers, got {box!r}", where=where)
    return [float(value) for value in values]


def _rle(segmentation: Any, size_hw: tuple[int, int], where: str) -> Entry:
    if not isinstance(segmentation, Mapping):
        raise DatasetError(
            f"expected a segmentation in run lengths (RLE), got {type(segmentation).__name__}",
            where=where,
            remedy="convert polygons with segkit.structures.segmentation_to_rle",
        )
    try:
        rle = segmentation_to_rle(segmentation, size_hw)
        total = _run_total(rle["counts"].encode("ascii"))
    except Exception as error:  # pycocotools raises bare Exceptions
        raise DatasetError(f"expected a COCO RLE, could not read it ({error})", where=where) from error
    if rle["size"] != [*size_hw]:
        raise DatasetError(
            f"expected an RLE of the image's size {[*size_hw]} (height, width), got {rle['size']}", where=where
        )
    if total != size_hw[0] * size_hw[1]:
        raise DatasetError(
            f"expected RLE runs over {size_hw[0] * size_hw[1]} pixels, got runs over {total}",
            where=where,
            remedy="encode the mask again: the counts are cut off or of another image",
        )
    return {"size": [*size_hw], "counts": rle["counts"]}


def _run_total(counts: bytes) -> int:
    """Sum of the runs of compressed RLE counts (pycocotools maskApi.c, rleFrString); ValueError where malformed.

    Where the runs of two masks end at different pixels, pycocotools' rleIou never returns: hence the check.
    """
    chars = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - ord("0")
    if not chars.size or chars.min() < 0 or chars.max() >= 2 * MORE or chars[-1] & MORE:
        raise ValueError("counts are empty, cut off or hold other characters than RLE's")
    last = np.flatnonzero(chars & MORE == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > MAX_CHARS_PER_RUN:
        raise ValueError("counts hold a run beyond 32 bits")
    shifts = BITS_PER_CHAR * (np.arange(chars.size) - np.repeat(first, lengths))
    runs = np.add.reduceat((chars & (MORE - 1)) << shifts, first)
    runs -= np.where(chars[last] & SIGN, 1 << BITS_PER_CHAR * lengths, 0)
    # From the fourth on, a run is stored as the difference from the one of its kind (mask or background) before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise ValueError("counts hold a negative run")
    return int(runs.sum())
