"""What panoptic metrics know of an image: its segments, and the pixels that each true and predicted one share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.boundary import boundary_dilation_px, boundary_pixels
from segkit.metrics.label_pairs import IntArray, Pairs, count_pairs, count_run_pairs
from segkit.structures import MAX_SEGMENT_ID, VOID, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

# area_px: of the map, or what was declared; counted_px: of the map; boundary_px: 0 where boundaries are not counted.
SEGMENT = np.dtype(
    [
        ("segment_id", "i4"),
        ("category_id", "i8"),
        ("iscrowd", "?"),
        ("area_px", "f8"),
        ("counted_px", "i8"),
        ("boundary_px", "i8"),
    ]
)
# ground truth, prediction: rows of the two segment tables, ON_VOID where there is no segment.
PAIR = np.dtype([("ground_truth", "i4"), ("prediction", "i4"), ("pixels", "i8"), ("boundary_px", "i8")])
ON_VOID = -1
AREAS = ("check", "recount", "trust")
REMEDY_AREAS = 'recount them (--recount-areas, areas="recount") or correct the file'

Table = NDArray[np.void]


@dataclass(frozen=True)
class ImageOverlaps:
    """ground truth: (T,) and prediction: (P,) `SEGMENT` rows in the order listed; pairs: (N,) `PAIR` rows, ascending by
    (true, predicted) segment_id, void first; every pair that shares a pixel, but for void on void."""

    ground_truth: Table
    prediction: Table
    pairs: Table


def compute_overlaps(
    ground_truth: PanopticSegmentation,
    prediction: PanopticSegmentation,
    categories: CategorySet,
    *,
    areas: str = "recount",
    boundary_ratio: float | None = None,
    where: str = "",
    gt_where: str | None = None,
    pred_where: str | None = None,
) -> ImageOverlaps:
    """Count two maps of one image: (H, W) integers, 0 = void; category ids of the dataset.

    areas: what the `area_px` of a true segment is worth: "recount" (not read), "check" (refused where it is wrong)
    or "trust" (taken in place of the map's, as panopticapi does). Predicted areas are not read.
    boundary_ratio: count boundary pixels too, within this share of the image's diagonal.
    where, gt_where, pred_where: what errors of both maps, of one map name (a file, an image).
    Raises DatasetError where the sizes differ, a category is unknown, `segments` and map do not name the same ids,
    each once and in [1, MAX_SEGMENT_ID], or an area is contradicted; ValueError where a map is not an (H, W) integer
    array.
    """
    if areas not in AREAS:
        raise ValueError(f"areas must be one of {AREAS}, got {areas!r}")
    gt_where = f"{where}, ground truth" if gt_where is None else gt_where
    pred_where = f"{where}, prediction" if pred_where is None else pred_where
    gt_ids, pred_ids, pixels = _count(ground_truth, prediction, where)
    gt_rows = _segments(ground_truth.segments, gt_ids, pixels, categories, gt_where, areas)
    pred_rows = _segments(prediction.segments, pred_ids, pixels, categories, pred_where)
    kept = (gt_ids != VOID) | (pred_ids != VOID)
    gt_ids, pred_ids, pixels = gt_ids[kept], pred_ids[kept], pixels[kept]
    pairs = np.zeros(len(pixels), dtype=PAIR)
    pairs["ground_truth"] = _rows_of(gt_ids, gt_rows["segment_id"])
    pairs["prediction"] = _rows_of(pred_ids, pred_rows["segment_id"])
    pairs["pixels"] = pixels
    found = ImageOverlaps(gt_rows, pred_rows, pairs)
    if boundary_ratio is not None:
        _count_boundaries(found, ground_truth.segment_ids, prediction.segment_ids, boundary_ratio)
    return found


def _count(ground_truth: PanopticSegmentation, prediction: PanopticSegmentation, where: str) -> Pairs:
    if _has_runs(ground_truth) and _has_runs(prediction):
        return count_run_pairs(ground_truth.runs, prediction.runs, where)
    return count_pairs(ground_truth.segment_ids, prediction.segment_ids, where)


def _has_runs(segmentation: PanopticSegmentation) -> bool:
    """Whether its map is one that `IdRuns` can hold; other integers are counted pixel by pixel."""
    if "runs" in vars(segmentation):
        return True
    ids = segmentation.segment_ids
    return isinstance(ids, np.ndarray) and ids.ndim == 2 and ids.dtype == np.int32


def _segments(
    segments: Sequence[Segment],
    ids: IntArray,
    pixels: NDArray[np.int64],
    categories: CategorySet,
    where: str,
    areas: str = "recount",
) -> Table:
    """Rows of the listed segments; ids, pixels: the map's, an id as often as it has pairs."""
    counted = dict.fromkeys(ids.tolist(), 0)
    for segment_id, count in zip(ids.tolist(), pixels.tolist(), strict=True):
        counted[segment_id] += count
    counted.pop(VOID, None)
    _check(segments, counted, categories, where)
    if areas == "check":
        _check_areas(segments, counted, where)
    rows = np.zeros(len(segments), dtype=SEGMENT)
    rows["segment_id"] = [segment.segment_id for segment in segments]
    rows["category_id"] = [segment.category_id for segment in segments]
    rows["iscrowd"] = [segment.iscrowd for segment in segments]
    rows["counted_px"] = [counted[segment.segment_id] for segment in segments]
    rows["area_px"] = rows["counted_px"]
    if areas == "trust":
        rows["area_px"] = [segment.area_px for segment in segments]
    return rows


def _check(segments: Sequence[Segment], counted: dict[int, int], categories: CategorySet, where: str) -> None:
    listed = {segment.segment_id for segment in segments}
    known = all(segment.category_id in categories for segment in segments)
    if known and len(listed) == len(segments) and listed == counted.keys() and _are_segment_ids(listed):
        return
    seen: set[int] = set()
    for segment in segments:
        here = f"{where}, segment {segment.segment_id}"
        if segment.segment_id in seen:
            raise DatasetError("expected every segment once, got this id a second time", where=here)
        if not VOID < segment.segment_id <= MAX_SEGMENT_ID:
            raise DatasetError(f"expected a segment id in [1, {MAX_SEGMENT_ID}]; {VOID} is void", where=here)
        if segment.category_id not in categories:
            ids = [category.category_id for category in categories.categories]
            raise DatasetError(f"expected a category_id out of {ids}, got {segment.category_id!r}", where=here)
        if segment.segment_id not in counted:
            raise DatasetError("expected pixels with this id in the map, got none", where=here, remedy="drop it")
        seen.add(segment.segment_id)
    for segment_id, count in counted.items():
        if segment_id not in seen:
            raise DatasetError(
                f"expected a segment for every id of the map, got {count} pixels of an id without one",
                where=f"{where}, segment {segment_id}",
                remedy=f"add the segment or set its pixels to {VOID} (void)",
            )


def _are_segment_ids(ids: Collection[int]) -> bool:
    return not ids or (min(ids) > VOID and max(ids) <= MAX_SEGMENT_ID)


def _check_areas(segments: Sequence[Segment], counted: dict[int, int], where: str) -> None:
    wrong = [segment for segment in segments if segment.area_px != counted[segment.segment_id]]
    if wrong:
        first, more = wrong[0], f" (and {len(wrong) - 1} more segments of this image)" if len(wrong) > 1 else ""
        raise DatasetError(
            f"the declared area is {first.area_px}, the map has {counted[first.segment_id]} pixels{more}",
            where=f"{where}, segment {first.segment_id}",
            remedy=REMEDY_AREAS,
        )


def _rows_of(ids: IntArray, listed_ids: NDArray[np.int32]) -> list[int]:
    """The row in `listed_ids` of every id, ON_VOID for void; every other id is listed."""
    row_of = {segment_id: row for row, segment_id in enumerate(listed_ids.tolist())}
    return [row_of.get(segment_id, ON_VOID) for segment_id in ids.tolist()]


def _count_boundaries(found: ImageOverlaps, ground_truth: IntArray, prediction: IntArray, ratio: float) -> None:
    """Fill in boundary_px. A pair's are the pixels on the boundary of both of its segments; of void and a predicted
    segment, those of the predicted segment's boundary (boundary_iou/coco_panoptic_api/evaluation.py)."""
    if not ground_truth.size:
        return
    distance_px = boundary_dilation_px((ground_truth.shape[0], ground_truth.shape[1]), ratio)
    of_truth, of_prediction = boundary_pixels(ground_truth, distance_px), boundary_pixels(prediction, distance_px)
    _add_boundaries(found.ground_truth, np.where(of_truth, ground_truth, VOID))
    _add_boundaries(found.prediction, np.where(of_prediction, prediction, VOID))
    # A pixel counts where it is on both boundaries, void having no inside; other pixels go to void on void.
    both = of_prediction & (of_truth | (ground_truth == VOID))
    columns = count_pairs(np.where(both, ground_truth, VOID), np.where(both, prediction, VOID))
    counted = {(t, p): count for t, p, count in zip(*(column.tolist() for column in columns), strict=True)}
    gt_ids = _ids_of(found.pairs["ground_truth"], found.ground_truth)
    pred_ids = _ids_of(found.pairs["prediction"], found.prediction)
    found.pairs["boundary_px"] = [counted.get(pair, 0) for pair in zip(gt_ids, pred_ids, strict=True)]


def _add_boundaries(rows: Table, ids_on_boundary: IntArray) -> None:
    ids, counts = np.unique(ids_on_boundary, return_counts=True)
    counted = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    rows["boundary_px"] = [counted.get(segment_id, 0) for segment_id in rows["segment_id"].tolist()]


def _ids_of(rows: NDArray[np.int32], table: Table) -> list[Any]:
    ids = np.append(table["segment_id"], VOID)  # ON_VOID is the last
    listed: list[Any] = ids[rows].tolist()
    return listed


@dataclass(frozen=True)
class OverlapTable:
    """Images joined: the rows of all, `pairs` pointing into the joined segment tables.

    gt_image, pred_image, pair_image: the image of every row, as a place in `image_ids`.
    """

    image_ids: tuple[int | str, ...]
    ground_truth: Table
    prediction: Table
    pairs: Table
    gt_image: NDArray[np.int64]
    pred_image: NDArray[np.int64]
    pair_image: NDArray[np.int64]


def join(images: Sequence[tuple[int | str, ImageOverlaps]]) -> OverlapTable:
    """One table of many images, in their order."""
    found = [overlaps for _, overlaps in images]
    gt_image = _image_of([len(one.ground_truth) for one in found])
    pred_image = _image_of([len(one.prediction) for one in found])
    pair_image = _image_of([len(one.pairs) for one in found])
    pairs = concatenate([one.pairs for one in found], PAIR)
    for side, image in (("ground_truth", gt_image), ("prediction", pred_image)):
        first = np.searchsorted(image, pair_image)  # the first row of the pair's image
        pairs[side] = np.where(pairs[side] == ON_VOID, ON_VOID, pairs[side] + first)
    return OverlapTable(
        tuple(image_id for image_id, _ in images),
        concatenate([one.ground_truth for one in found], SEGMENT),
        concatenate([one.prediction for one in found], SEGMENT),
        pairs,
        gt_image,
        pred_image,
        pair_image,
    )


def concatenate(tables: Sequence[Table], dtype: np.dtype[Any]) -> Table:
    """Tables of `dtype` joined, byte by byte: numpy would compare the fields of each with the next one's."""
    parts = [np.zeros(0, dtype=np.uint8), *(np.ascontiguousarray(table).view(np.uint8) for table in tables)]
    return np.concatenate(parts).view(dtype)


def _image_of(lengths: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(lengths)), lengths)
