"""Segmentation and tracking quality (STQ): how well classes are segmented, and objects followed, over whole videos."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.overlaps import ON_VOID, OverlapTable
from segkit.structures import CategorySet

NO_CLASS = -1
PERCENT = 100.0

IntArray = NDArray[np.int64]


def compute_stq(table: OverlapTable, categories: CategorySet) -> dict[str, float | None]:
    """Compute STQ (Weber et al. 2021, STEP: Segmenting and Tracking Every Pixel, section 4), in percent.

    STQ = sqrt(AQ * SQ). AQ is the mean over the objects g of the ground truth, over all their frames, of
    sum over the predicted objects p of |p and g| / |g| * |p and g| / |p or g|. It does not depend on classes: a wrong
    one costs SQ. SQ is the mean IoU of the classes (`STQ_IoU`, since SQ of PQ is another number). Both count pixels of
    all videos: void in the ground truth does not count in SQ, and its crowds do not count in AQ.

    Args:
        table: The segments of the frames of all videos; an image is a video.
        categories: Their categories.

    Returns:
        `STQ`, `AQ`, `STQ_IoU`. AQ is None if the ground truth has no thing, STQ_IoU if it has no segment, STQ if one of
        them is.
    """
    association, iou = _compute_association(table, categories), _compute_mean_iou(table, categories)
    stq = None if association is None or iou is None else PERCENT * math.sqrt(association * iou)
    shares = {"AQ": association, "STQ_IoU": iou}
    return {"STQ": stq, **{name: None if share is None else PERCENT * share for name, share in shares.items()}}


def _compute_association(table: OverlapTable, categories: CategorySet) -> float | None:
    """AQ in [0, 1]; objects are ids of things in a video."""
    things = [category.category_id for category in categories.things]
    is_crowd = _get_column(table, "ground_truth", "iscrowd", 0).astype(np.bool_)
    is_thing = {side: np.isin(_get_categories(table, side), things) for side in ("ground_truth", "prediction")}
    counts = ~(is_thing["ground_truth"] & is_crowd)
    rows = {side: np.flatnonzero(counts & is_thing[side]) for side in is_thing}
    objects, sizes_px = {}, {}
    for side, own in rows.items():
        ids = np.stack([table.pair_image, _get_column(table, side, "segment_id", 0)], axis=1)[own]
        _, inverse = np.unique(ids, axis=0, return_inverse=True)
        objects[side] = np.full(len(table.pairs), -1, dtype=np.int64)
        objects[side][own] = inverse.reshape(-1)
        sizes_px[side] = np.bincount(inverse.reshape(-1), table.pairs["pixels"][own])
    if not len(sizes_px["ground_truth"]):
        return None
    both = np.flatnonzero((objects["ground_truth"] >= 0) & (objects["prediction"] >= 0))
    pairs = np.stack([objects["ground_truth"], objects["prediction"]], axis=1)[both]
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    shared_px = np.bincount(inverse.reshape(-1), table.pairs["pixels"][both], len(unique))
    gt_px, pred_px = sizes_px["ground_truth"][unique[:, 0]], sizes_px["prediction"][unique[:, 1]]
    terms = shared_px / gt_px * (shared_px / (gt_px + pred_px - shared_px))
    return math.fsum(terms.tolist()) / len(sizes_px["ground_truth"])  # rounded once: no order of videos moves a bit


def _compute_mean_iou(table: OverlapTable, categories: CategorySet) -> float | None:
    """Mean IoU in [0, 1] of the classes that ground truth or prediction has, where the ground truth is not void."""
    inside = table.pairs["ground_truth"] != ON_VOID
    pixels = table.pairs["pixels"][inside]
    gt, pred = (_get_categories(table, side)[inside] for side in ("ground_truth", "prediction"))
    ious = []
    for category in categories.categories:
        in_gt, in_pred = gt == category.category_id, pred == category.category_id
        union_px = int(pixels[in_gt | in_pred].sum())
        if union_px:
            ious.append(int(pixels[in_gt & in_pred].sum()) / union_px)
    return math.fsum(ious) / len(ious) if ious else None


def _get_categories(table: OverlapTable, side: str) -> IntArray:
    return _get_column(table, side, "category_id", NO_CLASS)


def _get_column(table: OverlapTable, side: str, name: str, on_void: int) -> IntArray:
    """A column of the segments of each pair."""
    rows: Any = table.pairs[side]
    values = np.full(len(rows), on_void, dtype=np.int64)
    inside = rows != ON_VOID
    values[inside] = getattr(table, side)[name][rows[inside]]
    return values
