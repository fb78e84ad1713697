"""COCO annotations and results, checked before pycocotools sees them: it scores nonsense silently, or hangs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.metrics.instances.coco_runs import Covered, covered
from segkit.structures import CategorySet, segmentation_to_rle
from segkit.utils.errors import DatasetError

Entry = dict[str, Any]
BOX, MASK = "bbox", "segmentation"  # fields of an entry
MIN_POLYGON_NUMBERS = 6  # three points; pycocotools takes four numbers for a box
MAX_COORDINATE = 1e6  # pixels; pycocotools' memory grows with the length of the outline
LARGEST = 1e150  # of a box: its area is a finite number, too


class ImageEntries(NamedTuple):
    """The annotations or the results of one image of (height, width) pixels; `where` is for messages."""

    entries: Sequence[Mapping[str, Any]]
    size_hw: tuple[int, int]
    where: str


class Columns(NamedTuple):
    """Checked annotations or results of things, a row each, in the order given.

    image: (N,) int64, index of the image. thing: (N,) int64, contiguous id. iscrowd: (N,) int64, 0 or 1. number: (N,)
    float64, an annotation's area or a result's score. boxes: (N, 4) float64 [x, y, width, height] in pixels, none
    where not asked for. box_area: (N,) float64 px^2 that a box is sized by, or none. masks: compressed RLE, of
    annotations also polygons, N or none. area_px: (N,) int64 pixels of each mask, 0 for polygons, or none.
    """

    image: NDArray[np.int64]
    thing: NDArray[np.int64]
    iscrowd: NDArray[np.int64]
    number: NDArray[np.float64]
    boxes: NDArray[np.float64]
    box_area: NDArray[np.float64]
    masks: list[Any]
    area_px: NDArray[np.int64]


def read_columns(
    images: Sequence[ImageEntries], number: str, fields: Collection[str], categories: CategorySet
) -> Columns:
    """All entries of these images, checked; what `read_entry` says of one holds for each of them.

    Checked column by column; an entry that stands out is looked at by `read_entry`, which words the fault. Entries of
    stuff are checked and left out. Raises DatasetError, naming image and index, where an entry is wrong.
    """
    columns = _plain_columns(images, number, fields, categories)
    if columns is None:
        read = [image._replace(entries=read_image(image, number, fields, categories)) for image in images]
        columns = _plain_columns(read, number, fields, categories)
    if columns is None:
        raise RuntimeError("entries that read_entry takes must be columns")
    return columns if (columns.thing >= 0).all() else select(columns, np.flatnonzero(columns.thing >= 0))


def select(columns: Columns, rows: NDArray[np.integer]) -> Columns:
    """These rows."""
    kept = {name: column[rows] for name, column in _arrays(columns).items() if len(column)}
    return columns._replace(masks=[columns.masks[row] for row in rows.tolist()] if columns.masks else [], **kept)


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, of at least one. The parts are one image each: `image` is the part's index."""
    concatenate_matches = {name: np.concatenate([_arrays(part)[name] for part in parts]) for name in _arrays(parts[0])}
    concatenate_matches["image"] = np.repeat(np.arange(len(parts)), [len(part.image) for part in parts])
    return parts[0]._replace(masks=[mask for part in parts for mask in part.masks], **concatenate_matches)


def with_mask_boxes(columns: Columns) -> Columns:
    """With boxes around the masks, sized by the masks' area: what COCO.loadRes gives to results without boxes."""
    boxes = coco_mask.toBbox([dict(rle) for rle in columns.masks]) if columns.masks else np.zeros((0, 4))
    return columns._replace(boxes=np.asarray(boxes, dtype=np.float64), box_area=columns.area_px.astype(np.float64))


def read_image(image: ImageEntries, number: str, fields: Collection[str], categories: CategorySet) -> list[Entry]:
    """`read_entry` of each entry."""
    return [
        read_entry(entry, number, fields, categories, image.size_hw, f"{image.where}[{index}]")
        for index, entry in enumerate(image.entries)
    ]


def read_entry(
    entry: Mapping[str, Any],
    number: str,
    fields: Collection[str],
    categories: CategorySet,
    size_hw: tuple[int, int],
    where: str,
) -> Entry:
    """A copy of what scoring needs of a COCO annotation (`number` "area") or result (`number` "score").

    Keeps category_id (of the dataset), iscrowd (0 or 1, default 0), the finite `number`, and of `fields` "bbox", the
    box [x, y, width, height] in pixels as floats, and "segmentation", the compressed RLE of the image's size; polygons
    of an annotation are kept as polygons.
    Raises DatasetError, naming `where`, where one of these is missing or wrong.
    """
    if not isinstance(entry, Mapping):
        raise DatasetError(f"expected an object with category_id, got {type(entry).__name__}", where=where)
    category_id = entry.get("category_id")
    if not isinstance(category_id, Integral) or isinstance(category_id, bool) or category_id not in categories:
        known = [category.category_id for category in categories.categories]
        raise DatasetError(f"expected a category_id out of {known}, got {category_id!r}", where=where)
    iscrowd = entry.get("iscrowd", 0)
    if not isinstance(iscrowd, Real | np.bool_) or not (iscrowd == 0 or iscrowd == 1):
        raise DatasetError(f"expected iscrowd to be 0 or 1, got {iscrowd!r}", where=where)
    if not _is_finite(entry.get(number)):
        raise DatasetError(f"expected a finite {number}, got {entry.get(number)!r}", where=where)
    kept: Entry = {"category_id": int(category_id), "iscrowd": int(iscrowd == 1), number: float(entry[number])}
    if BOX in fields:
        kept[BOX] = _box(entry.get(BOX), where)
    if MASK in fields:
        polygons = number == "area" and isinstance(entry.get(MASK), list)
        kept[MASK] = _polygons(entry[MASK], where) if polygons else _rle(entry.get(MASK), size_hw, where)
    return kept


def _plain_columns(
    images: Sequence[ImageEntries], number: str, fields: Collection[str], categories: CategorySet
) -> Columns | None:
    """The columns of entries as json.load gives them; None where one is malformed or of other types."""
    entries = list(chain.from_iterable(image.entries for image in images))
    if not {*map(type, entries)} <= {dict}:
        return None
    lengths = [len(image.entries) for image in images]
    category_ids: list[Any] = [entry.get("category_id") for entry in entries]
    iscrowd = [entry.get("iscrowd", 0) for entry in entries]
    numbers = _floats([entry.get(number) for entry in entries])
    if not {*map(type, category_ids), *map(type, iscrowd)} <= {int} or not {*iscrowd} <= {0, 1} or numbers is None:
        return None
    thing_of = {category.category_id: -1 for category in categories.stuff} | categories.thing_contiguous_ids
    if not {*category_ids} <= thing_of.keys():
        return None
    boxes = _boxes([entry.get(BOX) for entry in entries]) if BOX in fields else np.zeros((0, 4))
    masks: list[Any] = [entry.get(MASK) for entry in entries] if MASK in fields else []
    sizes_hw = np.repeat(np.array([image.size_hw for image in images]).reshape(-1, 2), lengths, axis=0)
    area_px = _areas(masks, sizes_hw[: len(masks)], number == "area")
    if boxes is None or area_px is None:
        return None
    image = np.repeat(np.arange(len(images)), lengths)
    thing = np.array([thing_of[category_id] for category_id in category_ids], dtype=np.int64)
    crowd = np.array(iscrowd, dtype=np.int64)
    return Columns(image, thing, crowd, numbers, boxes, boxes[:, 2] * boxes[:, 3], masks, area_px)


def _floats(values: list[Any]) -> NDArray[np.float64] | None:
    if not {*map(type, values)} <= {int, float}:
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _boxes(boxes: list[Any]) -> NDArray[np.float64] | None:
    if not {*map(type, boxes)} <= {list, tuple} or not {*map(len, boxes)} <= {4}:
        return None
    numbers = _floats(list(chain.from_iterable(boxes)))
    if numbers is None or (numbers.reshape(-1, 4)[:, 2:] < 0).any() or (np.abs(numbers) > LARGEST).any():
        return None
    return numbers.reshape(-1, 4)


def _areas(masks: list[Any], sizes_hw: NDArray[np.int64], polygons: bool) -> NDArray[np.int64] | None:
    """Pixels of each mask; None where one is no compressed RLE of its image's size, nor, if allowed, polygons."""
    if not polygons or not {*map(type, masks)} & {list}:
        found = _covered(masks, sizes_hw)
        return None if found is None else found.area_px
    outlines = [mask for mask in masks if type(mask) is list]
    rows = np.flatnonzero([type(mask) is not list for mask in masks])
    found = _covered([masks[row] for row in rows.tolist()], sizes_hw[rows])
    if found is None or not _polygons_sound(outlines):
        return None
    area_px = np.zeros(len(masks), dtype=np.int64)
    area_px[rows] = found.area_px
    return area_px


def _covered(rles: list[Any], sizes_hw: NDArray[np.int64]) -> Covered | None:
    if not {*map(type, rles)} <= {dict}:
        return None
    sizes = [rle.get("size") for rle in rles]
    counts = [rle.get("counts") for rle in rles]
    if not {*map(type, sizes)} <= {list} or not {*map(len, sizes)} <= {2} or not {*map(type, counts)} <= {str}:
        return None
    lengths = list(chain.from_iterable(sizes))
    if not {*map(type, lengths)} <= {int} or lengths != sizes_hw.ravel().tolist():
        return None
    try:
        found = covered(counts)
    except ValueError:  # UnicodeEncodeError is one
        return None
    return found if (found.total_px == sizes_hw.prod(axis=1)).all() else None


def _polygons_sound(outlines: list[list[Any]]) -> bool:
    polygons = list(chain.from_iterable(outlines))
    if [] in outlines or not {*map(type, polygons)} <= {list}:
        return False
    if any(length < MIN_POLYGON_NUMBERS or length % 2 for length in {*map(len, polygons)}):
        return False
    numbers = _floats(list(chain.from_iterable(polygons)))
    return numbers is not None and bool((np.abs(numbers) <= MAX_COORDINATE).all())


def _arrays(columns: Columns) -> dict[str, Any]:
    return {name: column for name, column in columns._asdict().items() if name != "masks"}


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _box(box: Any, where: str) -> list[float]:
    values = box.tolist() if isinstance(box, np.ndarray) else box
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(_is_finite(value) for value in values):
        raise DatasetError(f"expected bbox [x, y, width, height] of four finite numbers, got {box!r}", where=where)
    if max(map(abs, values)) > LARGEST:
        raise DatasetError(f"expected bbox of numbers up to {LARGEST:.0e} in size, got {box!r}", where=where)
    if values[2] < 0 or values[3] < 0:
        raise DatasetError(
            f"expected bbox [x, y, width, height] with a width and height of 0 or more, got {box!r}",
            where=where,
            remedy="is it [x0, y0, x1, y1]?",
        )
    return [float(value) for value in values]


def _polygons(polygons: list[Any], where: str) -> list[list[float]]:
    for polygon in polygons:
        if not isinstance(polygon, list | tuple | np.ndarray) or not all(map(_is_finite, polygon)):
            raise DatasetError("expected every polygon to be a list of finite x and y in pixels", where=where)
    plain = [[float(number) for number in polygon] for polygon in polygons]
    if not _polygons_sound([plain]):
        expected = f"polygons of three or more pairs of x and y within {MAX_COORDINATE:.0e} pixels"
        raise DatasetError(f"expected {expected}, got lengths {[len(polygon) for polygon in plain]}", where=where)
    return plain


def _rle(segmentation: Any, size_hw: tuple[int, int], where: str) -> Entry:
    if not isinstance(segmentation, Mapping):
        raise DatasetError(
            f"expected a segmentation in run lengths (RLE), got {type(segmentation).__name__}",
            where=where,
            remedy="convert polygons with segkit.structures.segmentation_to_rle",
        )
    try:
        rle = segmentation_to_rle(segmentation, size_hw)
        size = [int(length) for length in rle["size"]]
        total_px = int(covered([rle["counts"]]).total_px[0])
    except Exception as error:  # pycocotools raises bare Exceptions
        raise DatasetError(f"expected a COCO RLE, could not read it ({error})", where=where) from error
    if size != [*size_hw]:
        raise DatasetError(
            f"expected an RLE of the image's size {[*size_hw]} (height, width), got {rle['size']}", where=where
        )
    if total_px != size_hw[0] * size_hw[1]:
        raise DatasetError(
            f"expected RLE runs over {size_hw[0] * size_hw[1]} pixels, got runs over {total_px}",
            where=where,
            remedy="encode the mask again: the counts are cut off or of another image",
        )
    return {"size": [*size_hw], "counts": rle["counts"]}
