"""Error budget of PQ: the points that each type of error costs, as TIDE does for AP (Bolya et al. 2020)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import Counts, get_category_rows
from segkit.metrics.panoptic.error_types import ERROR_TYPES, SegmentErrors, classify_errors
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.state import none_if_nan
from segkit.structures import CategorySet

MASK_QUALITY = "mask_quality"  # no error of a segment: what matches lose by an IoU below 1
REPAIRS = (*ERROR_TYPES, MASK_QUALITY)


def error_budget(table: OverlapTable, categories: CategorySet, mode: str = "reference") -> dict[str, Any]:
    """Compute by how many points PQ would rise if one type of error were repaired and nothing else.

    A repair turns missed segments into matches and removes false positives. wrong_class gives the ground truth segment
    the IoU of the pair; split the IoU of the parts joined; merged the IoU of its part of the prediction, cut along the
    ground truth segments; all other types IoU 1. split and merged also raise the IoU of matched segments that they
    concern. Every new IoU is above 0.5, so no cost is negative. Areas are those of the maps.

    A category without ground truth segments (crowds do not count) has PQ 0 by its false positives, and leaves the mean
    if the last one is repaired, by PQ's rule: its own cost is None, and the gain of the mean is in the overall costs.

    Args:
        table: The segments of all images.
        categories: Their categories.
        mode: The mode of `match`.

    Returns:
        `PQ`, `PQ_th`, `PQ_st`, in percent.
        `error_types`: type of error (`REPAIRS`) -> {cost, cost_th, cost_st: points of PQ, of things, of stuff;
        per_class: str(category_id) -> points; gt_segments, pred_segments: numbers of this type; segments: both}. The
        segments of `mask_quality` are the matched ground truth segments with an IoU below 1.
        `all`: {cost, cost_th, cost_st} of all repairs, after which every PQ is 100; the costs do not add up to it.
        A cost is None for a group or category without ground truth segments.

    Raises:
        ValueError: The mode is unknown.
    """
    errors = classify_errors(table, mode)
    exact = mode == "corrected"
    counts = counting.count(errors.table, errors.matching, categories, exact=exact)
    pq = counting.averages(counts, categories, exact=exact)
    before = repair(errors, categories, ())
    budget: dict[str, dict[str, Any]] = {}
    for error_type in REPAIRS:
        costs = _compute_costs(before, repair(errors, categories, (error_type,)), categories)
        budget[error_type] = {**costs, **_count_segments(errors, error_type)}
    everything = _compute_costs(before, repair(errors, categories, REPAIRS), categories)
    del everything["per_class"]
    return {**{name: pq[name] for name in ("PQ", "PQ_th", "PQ_st")}, "error_types": budget, "all": everything}


def repair(errors: SegmentErrors, categories: CategorySet, repairs: Collection[str]) -> Counts:
    """(C,) counts after these of `REPAIRS`, with IoUs added so that no order moves a bit (math.fsum)."""
    table, matching = errors.table, errors.matching
    matches = np.flatnonzero(matching.matched)
    ious: FloatArray = np.zeros(len(table.ground_truth))  # with the maps' areas a segment has at most one match
    ious[table.pairs["ground_truth"][matches]] = matching.iou[matches]
    for error_type in ERROR_TYPES:
        if error_type in repairs:
            ious = np.maximum(ious, _compute_repaired_ious(errors, error_type))
    matched = ious > 0
    if MASK_QUALITY in repairs:  # last: it raises the segments of other repairs too
        ious[matched] = 1
    repaired = [index for index, error_type in enumerate(ERROR_TYPES) if error_type in repairs]
    false_positive = matching.false_positive & ~np.isin(errors.pred_type, repaired)
    gt_rows = get_category_rows(categories, table.ground_truth["category_id"])
    fp_rows = get_category_rows(categories, table.prediction["category_id"][false_positive])
    number = len(categories)
    return Counts(
        counting.compute_sums(ious[matched], gt_rows[matched], number, exact=True),
        np.bincount(gt_rows[matched], minlength=number),
        np.bincount(fp_rows, minlength=number),
        np.bincount(gt_rows[~table.ground_truth["iscrowd"] & ~matched], minlength=number),
    )


def _compute_repaired_ious(errors: SegmentErrors, error_type: str) -> FloatArray:
    """(T,) the IoU of every ground truth segment that the repair concerns, 0 for others."""
    of_type = errors.gt_type == ERROR_TYPES.index(error_type)
    ious = np.zeros(len(of_type))
    if error_type == "wrong_class":
        ious[of_type] = errors.matching.iou[errors.gt_pair[of_type]]
    elif error_type in ("split", "merged"):
        concerned: BoolArray = of_type | (~errors.table.ground_truth["iscrowd"] & ~errors.matching.missed)
        ious[concerned] = (errors.joined_iou if error_type == "split" else errors.cut_iou)[concerned]
    else:
        ious[of_type] = 1
    return ious


def _count_segments(errors: SegmentErrors, error_type: str) -> dict[str, int]:
    if error_type == MASK_QUALITY:
        gt, predicted = int((errors.matching.iou[errors.matching.matched] < 1).sum()), 0
    else:
        index = ERROR_TYPES.index(error_type)
        gt, predicted = (int((types == index).sum()) for types in (errors.gt_type, errors.pred_type))
    return {"segments": gt + predicted, "gt_segments": gt, "pred_segments": predicted}


def _compute_costs(before: Counts, after: Counts, categories: CategorySet) -> dict[str, Any]:
    """Points of PQ that a repair gains: of all categories, of things, of stuff and per class."""
    low, high = (counting.averages(counts, categories, exact=True) for counts in (before, after))
    has_gt = before.tp + before.fn > 0
    costs: dict[str, Any] = {}
    for suffix, selected in counting.select_groups(categories).items():
        first, last = low[f"PQ{suffix}"], high[f"PQ{suffix}"]
        is_defined = has_gt[selected].any() and first is not None and last is not None
        costs[f"cost{suffix}"] = last - first if is_defined else None  # type: ignore[operator]
    gain = np.where(has_gt, 100 * (after.quality()[0] - before.quality()[0]), np.nan)
    category_ids = [str(category.category_id) for category in categories.categories]
    return {**costs, "per_class": dict(zip(category_ids, map(none_if_nan, gain), strict=True))}
