"""The images that cost most PQ, and their segments in error."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import TALLIES, Counts
from segkit.metrics.panoptic.error_types import ERROR_TYPES, NO_ERROR, NO_PAIR, SegmentErrors, classify_errors
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.state import argsort_image_ids, mean_over_present, none_if_nan, percent
from segkit.structures import CategorySet

LIMIT = 50  # images


def worst_images(
    table: OverlapTable, categories: CategorySet, mode: str = "reference", limit: int = LIMIT
) -> list[dict[str, Any]]:
    """List the images whose errors cost most.

    The cost of an image is the points by which the dataset's PQ would rise if this image were predicted perfectly and
    all others stayed as they are.

    Args:
        table: The segments of all images.
        categories: Their categories.
        mode: The mode of `match`.
        limit: Number of images to list.

    Returns:
        {image_id, cost, mask_quality_cost, PQ, tp, fp, fn, segments} of each image with an error, greatest cost first;
        of equal costs the lesser image_id is first, numbers before strings. mask_quality_cost: points lost by the IoUs
        of its matches alone. PQ: of the image, in percent.
        segments: the missed segments, then the false positives, each by segment_id: {segment_id, category_id, side:
        "ground_truth" or "prediction", error_type: one of `ERROR_TYPES`, iou: of the pair that makes the type, area_px:
        of the map, other_segment_id: of the other side}. iou and other_segment_id are None if nothing overlaps.
        The cost is None if the dataset has no ground truth segment (crowds do not count); such images are last.
    """
    errors = classify_errors(table, mode)
    order = argsort_image_ids(table.image_ids)
    counts = counting.count_per_image(errors.table, errors.matching, categories)
    counts = Counts(*(column[order] for column in vars(counts).values()))
    gt, none = counts.tp + counts.fn, np.zeros_like(counts.fp)
    cost = _compute_gain(counts, Counts(gt.astype(float), gt, none, none))
    mask_cost = _compute_gain(counts, Counts(counts.tp.astype(float), counts.tp, counts.fp, counts.fn))
    quality = mean_over_present(counts.quality()[0])
    has_error: BoolArray = np.any((counts.fp + counts.fn > 0) | (counts.iou < counts.tp), axis=1)
    ranked = np.argsort(-np.nan_to_num(cost, nan=-1.0), kind="stable")
    return [
        {
            "image_id": table.image_ids[order[row]],
            "cost": none_if_nan(cost[row]),
            "mask_quality_cost": none_if_nan(mask_cost[row]),
            "PQ": percent(quality[row]),
            **{name: int(getattr(counts, name)[row].sum()) for name in TALLIES},
            "segments": list_segment_errors(errors, int(order[row])),
        }
        for row in ranked[has_error[ranked]][: max(limit, 0)].tolist()
    ]


def list_segment_errors(errors: SegmentErrors, image: int) -> list[dict[str, Any]]:
    """The `segments` of `worst_images` for the image with this index in `table.image_ids`."""
    table, listed = errors.table, []
    for side, other_side, images, types, pairs in (
        ("ground_truth", "prediction", table.gt_image, errors.gt_type, errors.gt_pair),
        ("prediction", "ground_truth", table.pred_image, errors.pred_type, errors.pred_pair),
    ):
        segments, other_ids = getattr(table, side), getattr(table, other_side)["segment_id"]
        rows = np.flatnonzero((images == image) & (types != NO_ERROR))
        for row in rows[np.argsort(segments["segment_id"][rows])].tolist():
            pair = int(pairs[row])
            has_pair = pair != NO_PAIR
            listed.append(
                {
                    "segment_id": int(segments["segment_id"][row]),
                    "category_id": int(segments["category_id"][row]),
                    "side": side,
                    "error_type": ERROR_TYPES[types[row]],
                    "iou": float(errors.matching.iou[pair]) if has_pair else None,
                    "area_px": int(segments["counted_px"][row]),
                    "other_segment_id": int(other_ids[table.pairs[other_side][pair]]) if has_pair else None,
                }
            )
    return listed


def _compute_gain(counts: Counts, repaired: Counts) -> FloatArray:
    """(I,) points by which the dataset's PQ rises if an image has its repaired counts; NaN without ground truth."""
    totals = {name: column.sum(axis=0) for name, column in vars(counts).items()}
    if not (totals["tp"] + totals["fn"]).any():
        return np.full(len(counts.tp), np.nan)
    # Changes are added to the totals, with a row of no change below: an image with nothing to repair gains exactly 0.
    changes = {name: getattr(repaired, name) - column for name, column in vars(counts).items()}
    after = Counts(**{name: total + np.append(changes[name], [total * 0], axis=0) for name, total in totals.items()})
    quality = mean_over_present(after.quality()[0])
    gain: FloatArray = 100 * (quality[:-1] - quality[-1])
    return gain
