"""What panoptic metrics keep of an image: its segments, and the pixels that ground truth and prediction share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.boundary import boundary_dilation_px, boundary_pixels
from segkit.metrics.label_pairs import IntArray, Pairs, count_pairs, count_run_pairs
from segkit.metrics.state import Table, join_tables
from segkit.structures import MAX_SEGMENT_ID, VOID, CategorySet, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

# area_px: pixels of the map, or the declared area; counted_px: pixels of the map; boundary_px: 0 if not counted.
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
# ground_truth, prediction: rows of the two segment tables, ON_VOID for pixels without a segment.
PAIR = np.dtype([("ground_truth", "i4"), ("prediction", "i4"), ("pixels", "i8"), ("boundary_px", "i8")])
TABLES = {"ground_truth": SEGMENT, "prediction": SEGMENT, "pairs": PAIR}  # of `ImageOverlaps`
ON_VOID = -1
AREAS = ("check", "recount", "trust")
REMEDY_AREAS = 'recount them (--recount-areas, areas="recount") or correct the file'


@dataclass(frozen=True)
class ImageOverlaps:
    """The segments of one image and the pixels that they share.

    Attributes:
        ground_truth: (T,) `SEGMENT` rows in the order listed.
        prediction: (P,) `SEGMENT` rows in the order listed.
        pairs: (N,) `PAIR` rows ascending by (ground truth, predicted) segment_id, void first: every pair that shares a
            pixel, except void on void.
    """

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
    """Count the shared pixels of two maps of one image.

    Args:
        ground_truth: (H, W) integers, 0 = void; category ids of the dataset.
        prediction: (H, W) integers, 0 = void; category ids of the dataset. Its `area_px` is not read.
        categories: The categories of both.
        areas: How the `area_px` of ground truth segments is used: "recount" does not read it, "check" refuses a wrong
            one, "trust" takes it in place of the map's, as panopticapi does.
        boundary_ratio: In (0, 1), width of the boundaries as a share of the image's diagonal; None counts none.
        where: Place of both maps for error messages (a file, an image).
        gt_where: Place of the ground truth for error messages; None is `where`.
        pred_where: Place of the prediction for error messages; None is `where`.

    Returns:
        The segments and their pairs; empty tables for maps that are all void or have no pixels.

    Raises:
        DatasetError: The sizes differ; a category is unknown; `segments` and map do not name the same ids, each once
            and in [1, MAX_SEGMENT_ID]; or a checked area is wrong.
        ValueError: A map is not an (H, W) integer array, or `areas` is unknown.
    """
    if areas not in AREAS:
        raise ValueError(f"areas must be one of {AREAS}, got {areas!r}")
    gt_where = f"{where}, ground truth" if gt_where is None else gt_where
    pred_where = f"{where}, prediction" if pred_where is None else pred_where
    gt_ids, pred_ids, pixels = _count_pixels(ground_truth, prediction, where)
    gt_rows = _build_segment_table(ground_truth.segments, gt_ids, pixels, categories, gt_where, areas)
    pred_rows = _build_segment_table(prediction.segments, pred_ids, pixels, categories, pred_where)
    not_void = (gt_ids != VOID) | (pred_ids != VOID)
    gt_ids, pred_ids, pixels = gt_ids[not_void], pred_ids[not_void], pixels[not_void]
    pairs = np.zeros(len(pixels), dtype=PAIR)
    pairs["ground_truth"] = _find_rows(gt_ids, gt_rows)
    pairs["prediction"] = _find_rows(pred_ids, pred_rows)
    pairs["pixels"] = pixels
    overlaps = ImageOverlaps(gt_rows, pred_rows, pairs)
    if boundary_ratio is not None and ground_truth.segment_ids.size:
        _count_boundaries(overlaps, ground_truth.segment_ids, prediction.segment_ids, boundary_ratio)
    return overlaps


class HasTables(Protocol):
    """Counts with the three tables of `ImageOverlaps`."""

    @property
    def ground_truth(self) -> Table:
        """`SEGMENT` rows."""

    @property
    def prediction(self) -> Table:
        """`SEGMENT` rows."""

    @property
    def pairs(self) -> Table:
        """`PAIR` rows."""


def check_overlaps(overlaps: HasTables, categories: CategorySet) -> None:
    """Check tables that were read from a file.

    Args:
        overlaps: The tables.
        categories: The categories of their segments.

    Raises:
        ValueError: A segment has no pixels or an unknown category, or a pair has no pixels or a missing segment.
    """
    ids, pairs = [category.category_id for category in categories.categories], overlaps.pairs
    for name in ("ground_truth", "prediction"):
        rows = getattr(overlaps, name)
        if not np.isin(rows["category_id"], ids).all():
            raise ValueError("segments of unknown categories")
        has_pixels = np.isfinite(rows["area_px"]) & (rows["counted_px"] > 0) & (rows["boundary_px"] >= 0)
        if not has_pixels.all():
            raise ValueError("segments without pixels")
        if not np.isin(pairs[name], np.arange(ON_VOID, len(rows))).all():
            raise ValueError("pairs of missing segments")
    on_void = (pairs["ground_truth"] == ON_VOID) & (pairs["prediction"] == ON_VOID)
    if on_void.any() or (pairs["pixels"] < 1).any() or (pairs["boundary_px"] < 0).any():
        raise ValueError("pairs without pixels")


def _count_pixels(ground_truth: PanopticSegmentation, prediction: PanopticSegmentation, where: str) -> Pairs:
    if _has_runs(ground_truth) and _has_runs(prediction):
        return count_run_pairs(ground_truth.runs, prediction.runs, where)
    return count_pairs(ground_truth.segment_ids, prediction.segment_ids, where)


def _has_runs(segmentation: PanopticSegmentation) -> bool:
    """Whether `IdRuns` can hold the map; other integers are counted pixel by pixel."""
    if "runs" in vars(segmentation):
        return True
    ids = segmentation.segment_ids
    return isinstance(ids, np.ndarray) and ids.ndim == 2 and ids.dtype == np.int32


def _build_segment_table(
    segments: Sequence[Segment],
    ids: IntArray,
    pixels: NDArray[np.int64],
    categories: CategorySet,
    where: str,
    areas: str = "recount",
) -> Table:
    """Rows of the listed segments; ids, pixels: of all pairs, so that an id occurs once per pair."""
    counted = dict.fromkeys(ids.tolist(), 0)
    for segment_id, count in zip(ids.tolist(), pixels.tolist(), strict=True):
        counted[segment_id] += count
    counted.pop(VOID, None)
    _check_segments(segments, counted, categories, where)
    if areas == "check":
        _check_areas(segments, counted, where)
    rows = np.zeros(len(segments), dtype=SEGMENT)
    for name in ("segment_id", "category_id", "iscrowd"):
        rows[name] = [getattr(segment, name) for segment in segments]
    rows["counted_px"] = [counted[segment.segment_id] for segment in segments]
    rows["area_px"] = [segment.area_px for segment in segments] if areas == "trust" else rows["counted_px"]
    return rows


def _check_segments(segments: Sequence[Segment], counted: dict[int, int], categories: CategorySet, where: str) -> None:
    ids = {segment.segment_id for segment in segments}
    is_valid = not ids or (min(ids) > VOID and max(ids) <= MAX_SEGMENT_ID)
    has_categories = all(segment.category_id in categories for segment in segments)
    if is_valid and has_categories and len(ids) == len(segments) and ids == counted.keys():
        return
    seen: set[int] = set()
    for segment in segments:
        here = f"{where}, segment {segment.segment_id}"
        if segment.segment_id in seen:
            raise DatasetError("expected every segment once, got this id a second time", where=here)
        if not VOID < segment.segment_id <= MAX_SEGMENT_ID:
            raise DatasetError(f"expected a segment id in [1, {MAX_SEGMENT_ID}]; {VOID} is void", where=here)
        if segment.category_id not in categories:
            category_ids = [category.category_id for category in categories.categories]
            raise DatasetError(f"expected a category_id out of {category_ids}, got {segment.category_id!r}", where=here)
        if segment.segment_id not in counted:
            raise DatasetError("expected pixels with this id in the map, got none", where=here, remedy="drop it")
        seen.add(segment.segment_id)
    for segment_id, count in counted.items():
        if segment_id not in seen:
            problem = f"expected a segment for every id of the map, got {count} pixels of an id without one"
            remedy = f"add the segment or set its pixels to {VOID} (void)"
            raise DatasetError(problem, where=f"{where}, segment {segment_id}", remedy=remedy)


def _check_areas(segments: Sequence[Segment], counted: dict[int, int], where: str) -> None:
    wrong = [segment for segment in segments if segment.area_px != counted[segment.segment_id]]
    if wrong:
        first, more = wrong[0], f" (and {len(wrong) - 1} more segments of this image)" if len(wrong) > 1 else ""
        problem = f"the declared area is {first.area_px}, the map has {counted[first.segment_id]} pixels{more}"
        raise DatasetError(problem, where=f"{where}, segment {first.segment_id}", remedy=REMEDY_AREAS)


def _find_rows(ids: IntArray, table: Table) -> list[int]:
    """The row of every id in the table, ON_VOID for void."""
    row_by_id = {segment_id: row for row, segment_id in enumerate(table["segment_id"].tolist())}
    return [row_by_id.get(segment_id, ON_VOID) for segment_id in ids.tolist()]


def _count_boundaries(overlaps: ImageOverlaps, gt_map: IntArray, pred_map: IntArray, ratio: float) -> None:
    """Fill the columns boundary_px: of a pair, the pixels on the boundaries of both segments.

    The pixels of void and a predicted segment are those on the predicted segment's boundary, since all of void is its
    own boundary (boundary_iou/coco_panoptic_api/evaluation.py).
    """
    distance_px = boundary_dilation_px((gt_map.shape[0], gt_map.shape[1]), ratio)
    on_gt, on_pred = boundary_pixels(gt_map, distance_px), boundary_pixels(pred_map, distance_px)
    pair_ids = []
    for side, segment_ids, on_boundary in (("ground_truth", gt_map, on_gt), ("prediction", pred_map, on_pred)):
        rows = getattr(overlaps, side)
        ids, pixels = np.unique(segment_ids[on_boundary], return_counts=True)
        px_by_id = dict(zip(ids.tolist(), pixels.tolist(), strict=True))
        rows["boundary_px"] = [px_by_id.get(segment_id, 0) for segment_id in rows["segment_id"].tolist()]
        pair_ids.append(np.append(rows["segment_id"], VOID)[overlaps.pairs[side]].tolist())  # ON_VOID is the last row
    on_both = on_pred & (on_gt | (gt_map == VOID))
    columns = count_pairs(np.where(on_both, gt_map, VOID), np.where(on_both, pred_map, VOID))
    px_by_pair = {(gt, pred): px for gt, pred, px in zip(*(column.tolist() for column in columns), strict=True)}
    overlaps.pairs["boundary_px"] = [px_by_pair.get(pair, 0) for pair in zip(*pair_ids, strict=True)]


@dataclass(frozen=True)
class OverlapTable:
    """The tables of many images joined; `pairs` holds rows of the joined segment tables.

    Attributes:
        image_ids: I images.
        ground_truth: (T,) `SEGMENT` rows.
        prediction: (P,) `SEGMENT` rows.
        pairs: (N,) `PAIR` rows.
        gt_image: (T,) int64 index into `image_ids` of every ground truth segment.
        pred_image: (P,) int64 index into `image_ids` of every predicted segment.
        pair_image: (N,) int64 index into `image_ids` of every pair.
    """

    image_ids: tuple[ImageId, ...]
    ground_truth: Table
    prediction: Table
    pairs: Table
    gt_image: NDArray[np.int64]
    pred_image: NDArray[np.int64]
    pair_image: NDArray[np.int64]


def join(images: Sequence[tuple[ImageId, HasTables]]) -> OverlapTable:
    """Join many images into one table.

    Args:
        images: (image_id, overlaps) in the order of the table.

    Returns:
        The table; empty for no images.
    """
    tables, lengths = join_tables([overlaps for _, overlaps in images], TABLES)
    gt_image, pred_image, pair_image = (np.repeat(np.arange(len(images)), lengths[name]) for name in TABLES)
    gt_rows, pred_rows, pairs = tables.values()
    for side, segment_image in (("ground_truth", gt_image), ("prediction", pred_image)):
        first_row = np.searchsorted(segment_image, pair_image)  # of the pair's image
        pairs[side] = np.where(pairs[side] == ON_VOID, ON_VOID, pairs[side] + first_row)
    image_ids = tuple(image_id for image_id, _ in images)
    return OverlapTable(image_ids, gt_rows, pred_rows, pairs, gt_image, pred_image, pair_image)
