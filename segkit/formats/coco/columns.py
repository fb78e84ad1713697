"""Validated annotations and results as columns, all entries of a field at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats.coco import validation
from segkit.formats.coco.masks import MAX_COORDINATE, MAX_OUTLINE_PX, MIN_POLYGON_NUMBERS, find_mask_fault, is_too_long
from segkit.formats.coco.run_lengths import compute_areas
from segkit.structures import CategorySet, InstanceColumns, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.issues import raise_issue
from segkit.utils.json_fields import LARGEST, Entry

BOX, MASK = "bbox", "segmentation"
AREA, SCORE = "area", "score"
COMPRESS = "convert polygons with segkit.structures.segmentation_to_rle"


class ImageEntries(NamedTuple):
    """The annotations or the results of one image.

    Attributes:
        entries: JSON objects; values may also be NumPy's, tuples and bytes.
        size_hw: (height, width) of the image in pixels.
        where: its location, for messages.
    """

    entries: Sequence[Mapping[str, Any]]
    size_hw: tuple[int, int]
    where: str


def read_annotation_columns(
    images: Sequence[ImageEntries], fields: Collection[str], categories: CategorySet
) -> InstanceColumns:
    """Validate annotations and turn them into columns.

    Args:
        images: the annotations of each image.
        fields: which of `bbox` and `segmentation` are compared; others may be missing.
        categories: of the dataset; annotations of stuff are validated and left out.

    Returns:
        The columns of all things; masks are polygons or compressed RLE.

    Raises:
        DatasetError: an annotation is invalid.
        ValueError: the size of an image is below 1 pixel.
    """
    return _read_columns(images, AREA, fields, categories)


def read_result_columns(
    images: Sequence[ImageEntries], fields: Collection[str], categories: CategorySet, boxes_from_masks: bool = False
) -> InstanceColumns:
    """Validate results and turn them into columns.

    Args:
        images: the results of each image.
        fields: which of `bbox` and `segmentation` are compared; others may be missing.
        categories: of the dataset; results of stuff are validated and left out.
        boxes_from_masks: results have no box: it is drawn around the mask and sized by the mask's area, as
            COCO.loadRes does.

    Returns:
        The columns of all things; masks are compressed RLE.

    Raises:
        DatasetError: a result is invalid.
        ValueError: the size of an image is below 1 pixel.
    """
    if not boxes_from_masks:
        return _read_columns(images, SCORE, fields, categories)
    columns = _read_columns(images, SCORE, {*fields, MASK} - {BOX}, categories)
    boxes = coco_mask.toBbox([dict(rle) for rle in columns.masks]) if columns.masks else np.zeros((0, 4))
    return columns._replace(boxes=np.asarray(boxes, dtype=np.float64), box_area=columns.area_px.astype(np.float64))


def read_plain_columns(
    entries: Sequence[Mapping[str, Any]],
    sizes_hw: Sequence[tuple[int, int]],
    number: str,
    fields: Collection[str],
    index_by_category: Mapping[int, int],
) -> InstanceColumns | None:
    """Turn entries into columns if all are as `json.load` gives them and valid: a tenth of the time of one by one.

    Args:
        entries: annotations or results.
        sizes_hw: (height, width) in pixels of the image of each entry.
        number: `area` of annotations, `score` of results.
        fields: which of `bbox` and `segmentation` to read.
        index_by_category: what `thing` becomes, by category_id.

    Returns:
        The columns, without the column `image`; None if an entry is invalid, or valid in another type.
    """
    if not {*map(type, entries)} <= {dict}:
        return None
    category_ids: list[Any] = [entry.get("category_id") for entry in entries]
    iscrowd = [entry.get("iscrowd", 0) for entry in entries]
    numbers = _read_floats([entry.get(number) for entry in entries])
    if not {*map(type, category_ids), *map(type, iscrowd)} <= {int} or not {*iscrowd} <= {0, 1} or numbers is None:
        return None
    if not {*category_ids} <= index_by_category.keys() or (number == AREA and (numbers < 0).any()):
        return None
    boxes = _read_boxes([entry.get(BOX) for entry in entries]) if BOX in fields else np.zeros((0, 4))
    masks: list[Any] = [entry.get(MASK) for entry in entries] if MASK in fields else []
    area_px = _read_masks(masks, sizes_hw, polygons=number == AREA)
    if boxes is None or area_px is None:
        return None
    thing = np.array([index_by_category[category_id] for category_id in category_ids], dtype=np.int64)
    crowd = np.array(iscrowd, dtype=np.int64)
    return InstanceColumns(thing[:0], thing, crowd, numbers, boxes, boxes[:, 2] * boxes[:, 3], masks, area_px)


def _read_columns(
    images: Sequence[ImageEntries], number: str, fields: Collection[str], categories: CategorySet
) -> InstanceColumns:
    for image in images:
        if min(image.size_hw) < 1:
            raise ValueError(f"size_hw must be two numbers of pixels from 1 on, got {image.size_hw}")
    index_by_category = {category.category_id: -1 for category in categories.stuff} | categories.thing_contiguous_ids
    entries = list(chain.from_iterable(image.entries for image in images))
    sizes_hw = [image.size_hw for image in images for _ in image.entries]
    columns = read_plain_columns(entries, sizes_hw, number, fields, index_by_category)
    if columns is None:
        validated = [
            _validate(entry, number, fields, categories, image.size_hw, f"{image.where}[{index}]")
            for image in images
            for index, entry in enumerate(image.entries)
        ]
        columns = read_plain_columns(validated, sizes_hw, number, fields, index_by_category)
    if columns is None:
        raise RuntimeError("valid entries must become columns")
    columns = columns._replace(image=np.repeat(np.arange(len(images)), [len(image.entries) for image in images]))
    return columns if (columns.thing >= 0).all() else columns.select(np.flatnonzero(columns.thing >= 0))


def _validate(
    entry: object,
    number: str,
    fields: Collection[str],
    categories: CategorySet,
    size_hw: tuple[int, int],
    where: str,
) -> Entry:
    """The fields of one entry in JSON's types; DatasetError if one is invalid."""
    if not isinstance(entry, Mapping):
        got = type(entry).__name__
        raise DatasetError(f"expected an object with category_id, got {got}", where=where, code="type-wrong")
    plain = {key: _to_json_type(value) for key, value in entry.items()}
    if number == SCORE and MASK in fields and isinstance(plain.get(MASK), list):
        problem = "expected a segmentation in run lengths (RLE), got polygons"
        raise DatasetError(problem, where=where, remedy=COMPRESS, code="mask-invalid")
    keys = ("category_id", "iscrowd", number, *sorted(fields))
    return validation.validate_entry(plain, keys, categories.isthing_by_id, size_hw, where, raise_issue)


def _to_json_type(value: Any) -> Any:
    """NumPy's numbers and arrays, tuples and bytes, alone or in an RLE, as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [*value]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return {key: _to_json_type(inner) for key, inner in value.items()}
    return value


def _read_floats(values: Collection[Any], largest: float = LARGEST) -> NDArray[np.float64] | None:
    if not {*map(type, values)} <= {int, float}:
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return numbers if (np.abs(numbers) <= largest).all() else None


def _read_boxes(boxes: list[Any]) -> NDArray[np.float64] | None:
    if not {*map(type, boxes)} <= {list} or not {*map(len, boxes)} <= {validation.BOX_NUMBERS}:
        return None
    numbers = _read_floats(list(chain.from_iterable(boxes)), validation.LARGEST_IN_BOX)
    if numbers is None or (numbers.reshape(-1, 4)[:, 2:] < 0).any():
        return None
    return numbers.reshape(-1, 4)


def _read_masks(masks: list[Any], sizes_hw: Sequence[tuple[int, int]], polygons: bool) -> NDArray[np.int64] | None:
    """Pixels of each mask, 0 for polygons; None if one is neither RLE of its image nor valid polygons.

    RLE that is not compressed is compressed, in `masks` itself.
    """
    outlines = [mask for mask in masks if type(mask) is list]
    if outlines and not (polygons and _are_valid_polygons(outlines)):
        return None
    rows = [row for row, mask in enumerate(masks) if type(mask) is not list] if outlines else [*range(len(masks))]
    for row in rows:
        mask = masks[row]
        if type(mask) is not dict:
            return None
        if type(mask.get("counts")) is list:
            if find_mask_fault(mask, sizes_hw[row]):
                return None
            masks[row] = segmentation_to_rle(mask, sizes_hw[row])
    rles = [masks[row] for row in rows]
    counts, sizes = [rle.get("counts") for rle in rles], [rle.get("size") for rle in rles]
    if not {*map(type, counts)} <= {str} or sizes != [[*sizes_hw[row]] for row in rows]:
        return None
    if not {*map(type, chain.from_iterable(sizes))} <= {int}:
        return None
    try:
        areas = compute_areas(counts)
    except ValueError:  # UnicodeEncodeError is one
        return None
    area_px = np.zeros(len(masks), dtype=np.int64)
    area_px[rows] = areas.area_px
    image_px = np.array([sizes_hw[row] for row in rows], dtype=np.int64).reshape(-1, 2).prod(axis=1)
    return area_px if (areas.total_px == image_px).all() else None


def _are_valid_polygons(outlines: list[list[Any]]) -> bool:
    polygons = list(chain.from_iterable(outlines))
    if [] in outlines or not {*map(type, polygons)} <= {list}:
        return False
    lengths = {*map(len, polygons)}
    if any(length < MIN_POLYGON_NUMBERS or length % 2 for length in lengths):
        return False
    if not {*map(type, chain.from_iterable(polygons))} <= {int, float}:
        return False
    try:
        numbers = np.fromiter(chain.from_iterable(polygons), np.float64)
    except OverflowError:
        return False
    largest = float(np.abs(numbers).max())
    if not largest <= MAX_COORDINATE:  # nor if it is NaN
        return False
    return largest * max(lengths) <= MAX_OUTLINE_PX or not any(map(is_too_long, polygons))
