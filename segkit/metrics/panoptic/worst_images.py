"""The images that cost most PQ, and which of their segments are at fault."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import Counts, IntArray
from segkit.metrics.panoptic.error_types import ERROR_TYPES, NO_ERROR, NO_PAIR, SegmentErrors, classify_errors
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.per_image import argsort_image_ids
from segkit.metrics.resampling import mean_over_present
from segkit.structures import CategorySet

LIMIT = 50  # images


def worst_images(
    table: OverlapTable, categories: CategorySet, mode: str = "reference", limit: int = LIMIT
) -> list[dict[str, Any]]:
    """At most `limit` images, those first whose errors cost most: the points by which the dataset's PQ would rise
    were this image predicted perfectly and all others left as they are.

    Each {image_id, cost, mask_quality_cost: the points of its matches' IoUs alone, PQ: of the image, tp, fp, fn,
    segments}; images without any error are left out, of equal costs the lesser image_id is first (numbers before
    strings). segments: those missed or false, true ones first, by segment_id, each {segment_id, category_id, side:
    "ground_truth" or "prediction", error_type: one of `ERROR_TYPES`, iou: of the pair that makes the type, area_px: of
    the map, other_segment_id: of the other side}; iou and other_segment_id None where nothing overlaps.
    cost is None where the dataset has no true segment (crowds are none); such images are last.
    """
    errors = classify_errors(table, mode)
    order = argsort_image_ids(table.image_ids)
    counts = counting.count_per_image(errors.table, errors.matching, categories)
    counts = Counts(counts.iou[order], counts.tp[order], counts.fp[order], counts.fn[order])
    cost = _gain(counts, _perfect(counts))
    mask_cost = _gain(counts, Counts(counts.tp.astype(float), counts.tp, counts.fp, counts.fn))
    quality = mean_over_present(counts.quality()[0])
    wrong: BoolArray = np.any((counts.fp + counts.fn > 0) | (counts.iou < counts.tp), axis=1)
    ranked = np.argsort(-np.nan_to_num(cost, nan=-1.0), kind="stable")
    return [
        {
            "image_id": table.image_ids[order[row]],
            "cost": _number(cost[row]),
            "mask_quality_cost": _number(mask_cost[row]),
            "PQ": counting.percent(quality[row]),
            **{name: int(getattr(counts, name)[row].sum()) for name in ("tp", "fp", "fn")},
            "segments": list_segment_errors(errors, int(order[row])),
        }
        for row in ranked[wrong[ranked]][: max(limit, 0)].tolist()
    ]


def list_segment_errors(errors: SegmentErrors, image: int) -> list[dict[str, Any]]:
    """The missed and false segments of the image at this place of `table.image_ids`, as `worst_images` lists them."""
    table = errors.table
    missed = np.flatnonzero((table.gt_image == image) & (errors.gt_type != NO_ERROR))
    false_positives = np.flatnonzero((table.pred_image == image) & (errors.pred_type != NO_ERROR))
    return [
        *_list_side(errors, missed, "ground_truth", "prediction", errors.gt_type, errors.gt_pair),
        *_list_side(errors, false_positives, "prediction", "ground_truth", errors.pred_type, errors.pred_pair),
    ]


def _list_side(
    errors: SegmentErrors, rows: IntArray, side: str, other: str, kinds: IntArray, pairs: IntArray
) -> list[dict[str, Any]]:
    segments, others = getattr(errors.table, side), getattr(errors.table, other)
    found: list[dict[str, Any]] = []
    for row in rows.tolist():
        pair = int(pairs[row])
        alone = pair == NO_PAIR
        found.append(
            {
                "segment_id": int(segments["segment_id"][row]),
                "category_id": int(segments["category_id"][row]),
                "side": side,
                "error_type": ERROR_TYPES[kinds[row]],
                "iou": None if alone else float(errors.matching.iou[pair]),
                "area_px": int(segments["counted_px"][row]),
                "other_segment_id": None if alone else int(others["segment_id"][errors.table.pairs[other][pair]]),
            }
        )
    return sorted(found, key=lambda segment: segment["segment_id"])


def _perfect(counts: Counts) -> Counts:
    """Every true segment matched with IoU 1 and nothing else predicted."""
    found, none = counts.tp + counts.fn, np.zeros_like(counts.fp)
    return Counts(found.astype(float), found, none, none)


def _gain(counts: Counts, repaired: Counts) -> FloatArray:
    """(I,) points of the dataset's PQ by which putting an image's repaired counts in place of its own raises it; NaN
    without true segments."""
    names = ("iou", "tp", "fp", "fn")
    totals = {name: getattr(counts, name).sum(axis=0) for name in names}
    if not (totals["tp"] + totals["fn"]).any():
        return np.full(len(counts.tp), np.nan)
    # Added as differences, below them none: an image with nothing to repair gains 0 exactly.
    changes = {name: getattr(repaired, name) - getattr(counts, name) for name in names}
    after = Counts(*(totals[name] + np.append(changes[name], [totals[name] * 0], axis=0) for name in names))
    quality = mean_over_present(after.quality()[0])
    gain: FloatArray = 100 * (quality[:-1] - quality[-1])
    return gain


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
