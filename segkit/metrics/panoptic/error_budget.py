"""Error budget of PQ: the points that each kind of error costs, as TIDE does for AP (Bolya et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import Counts, get_category_rows
from segkit.metrics.panoptic.error_types import ERROR_TYPES, SegmentErrors, classify_errors
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.structures import CategorySet

MASK_QUALITY = "mask_quality"  # not a segment's fault: what matches lose by an IoU below 1
REPAIRS = (*ERROR_TYPES, MASK_QUALITY)


def error_budget(table: OverlapTable, categories: CategorySet, mode: str = "reference") -> dict[str, Any]:
    """What PQ would gain, in points, were one kind of error repaired and all else left: per class and in all.

    `PQ`, `PQ_th`, `PQ_st`, in percent; `kinds`: kind -> {cost, cost_th, cost_st: points of these; per_class:
    str(category_id) -> points; gt_segments, pred_segments: those of the kind; segments: both}. Of
    `mask_quality` the segments are the matched true ones with an IoU below 1. `all`: {cost, cost_th, cost_st} of
    repairing everything, which makes every PQ 100. Costs do not add up to it: PQ is no sum over errors.

    A repair moves true segments from missed to matched and takes false predictions away: wrong_class gives the true
    segment the pair's IoU, split that of the parts joined, merged that of its part of the prediction cut along the
    true segments, all other kinds IoU 1; split and merged raise a matched segment's IoU where it is concerned. Every
    new IoU is above half, so no cost is negative. The kinds are `classify_errors`'s; areas are those of the maps.

    A category without true segments (crowds are none) has PQ 0 by its false predictions and leaves the mean when the
    last is repaired, as PQ's rule is: its own cost is None, the mean's gain is in the costs of all. None too for a
    group without true segments. ValueError for another mode than `match`'s.
    """
    errors = classify_errors(table, mode)
    exact = mode == "corrected"
    counts = counting.count(errors.table, errors.matching, categories, exact=exact)
    pq = counting.averages(counts, categories, exact=exact)
    before = repair(errors, categories, ())
    kinds: dict[str, dict[str, Any]] = {}
    for kind in REPAIRS:
        after = repair(errors, categories, (kind,))
        per_class = _costs_per_class(before, after, categories)
        kinds[kind] = {**_costs(before, after, categories), **_segments(errors, kind), "per_class": per_class}
    everything = _costs(before, repair(errors, categories, REPAIRS), categories)
    return {**{name: pq[name] for name in ("PQ", "PQ_th", "PQ_st")}, "error_types": kinds, "all": everything}


def repair(errors: SegmentErrors, categories: CategorySet, kinds: Collection[str]) -> Counts:
    """(C,) counts with these of `REPAIRS` made, IoUs added so that no order moves a bit (math.fsum)."""
    counted = ~errors.table.ground_truth["iscrowd"]
    ious = _matched_ious(errors)
    for kind in ERROR_TYPES:
        if kind in kinds:
            ious = np.maximum(ious, _ious_repaired(errors, kind))
    found = ious > 0
    if MASK_QUALITY in kinds:  # last: of the segments that other repairs found, too
        ious[found] = 1
    repaired = [place for place, kind in enumerate(ERROR_TYPES) if kind in kinds]
    false = errors.matching.false_positive & ~np.isin(errors.pred_type, repaired)
    gt_rows = get_category_rows(categories, errors.table.ground_truth["category_id"])
    false_rows = get_category_rows(categories, errors.table.prediction["category_id"][false])
    number = len(categories)
    tp = np.bincount(gt_rows[found], minlength=number)
    by_class = np.split(ious[found][np.argsort(gt_rows[found], kind="stable")], np.cumsum(tp)[:-1])
    return Counts(
        np.array([math.fsum(each) for each in by_class]),
        tp,
        np.bincount(false_rows, minlength=number),
        np.bincount(gt_rows[counted & ~found], minlength=number),
    )


def _matched_ious(errors: SegmentErrors) -> FloatArray:
    """(T,) the IoU of every match, 0 for what has none; with the maps' areas a segment has at most one."""
    matches = np.flatnonzero(errors.matching.matched)
    ious = np.zeros(len(errors.table.ground_truth))
    ious[errors.table.pairs["ground_truth"][matches]] = errors.matching.iou[matches]
    return ious


def _ious_repaired(errors: SegmentErrors, kind: str) -> FloatArray:
    """(T,) the IoU of every true segment that the repair concerns, 0 for others."""
    of_kind = errors.gt_type == ERROR_TYPES.index(kind)
    ious = np.zeros(len(of_kind))
    if kind == "wrong_class":
        ious[of_kind] = errors.matching.iou[errors.gt_pair[of_kind]]
    elif kind in ("split", "merged"):
        concerned: BoolArray = of_kind | (~errors.table.ground_truth["iscrowd"] & ~errors.matching.missed)
        ious[concerned] = (errors.joined_iou if kind == "split" else errors.cut_iou)[concerned]
    else:
        ious[of_kind] = 1
    return ious


def _segments(errors: SegmentErrors, kind: str) -> dict[str, int]:
    if kind == MASK_QUALITY:
        true, predicted = int((errors.matching.iou[errors.matching.matched] < 1).sum()), 0
    else:
        place = ERROR_TYPES.index(kind)
        true, predicted = int((errors.gt_type == place).sum()), int((errors.pred_type == place).sum())
    return {"segments": true + predicted, "gt_segments": true, "pred_segments": predicted}


def _costs(before: Counts, after: Counts, categories: CategorySet) -> dict[str, float | None]:
    low, high = (counting.averages(counts, categories, exact=True) for counts in (before, after))
    has_truth = before.tp + before.fn > 0
    with_truth = {c.category_id for c, has in zip(categories.categories, has_truth, strict=True) if has}
    costs: dict[str, float | None] = {}
    for suffix, group in (("", categories.categories), ("_th", categories.things), ("_st", categories.stuff)):
        first, last = low[f"PQ{suffix}"], high[f"PQ{suffix}"]
        defined = any(category.category_id in with_truth for category in group)
        costs[f"cost{suffix}"] = last - first if defined and first is not None and last is not None else None
    return costs


def _costs_per_class(before: Counts, after: Counts, categories: CategorySet) -> dict[str, float | None]:
    gain = 100 * (after.quality()[0] - before.quality()[0])
    has_truth = before.tp + before.fn > 0
    return {
        str(category.category_id): float(gain[row]) if has_truth[row] else None
        for row, category in enumerate(categories.categories)
    }
