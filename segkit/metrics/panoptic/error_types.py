"""Why a segment has no match: one kind of error for every missed and every false segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.matching import (
    MATCH_IOU,
    BoolArray,
    FloatArray,
    Matching,
    compute_void_px,
    match,
    same_category,
)
from segkit.metrics.panoptic.overlaps import ON_VOID, OverlapTable

POOR_IOU = 0.1  # strictly above, a mask is poor; else it is no attempt (Bolya et al. 2020, TIDE, section 2.2: t_b)
# In order of precedence: the first that holds is the segment's kind.
ERROR_TYPES = ("wrong_class", "split", "merged", "poor_mask", "lost_to_void", "missed", "false_positive")
LOST_TO_VOID, MISSED, FALSE_POSITIVE = (
    ERROR_TYPES.index(kind) for kind in ("lost_to_void", "missed", "false_positive")
)
NO_ERROR = -1
NO_PAIR = -1

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SegmentErrors:
    """Every missed true and every false predicted segment of a table with its kind.

    table: the one diagnosed, areas those of the maps; matching: its matches.
    gt_type (T,), pred_type (P,): int64 places in `ERROR_TYPES`, `NO_ERROR` for what is matched, dropped or a crowd.
    gt_pair (T,), pred_pair (P,): int64 rows of `table.pairs`, the pair of greatest IoU out of those that make
    the kind (of any, where the kind is that nothing overlaps enough), of equals the first; `NO_PAIR` without a fault
    or any overlap.
    joined_iou: (T,) float64 IoU of all parts of a split true segment together, matched ones included; 0 elsewhere.
    cut_iou: (T,) float64 share of its pixels within the prediction that merges it with others, matched ones included;
    0 elsewhere.
    """

    table: OverlapTable
    matching: Matching
    gt_type: IntArray
    pred_type: IntArray
    gt_pair: IntArray
    pred_pair: IntArray
    joined_iou: FloatArray
    cut_iou: FloatArray


def classify_errors(table: OverlapTable, mode: str = "reference") -> SegmentErrors:
    """Give every unmatched segment that counts exactly one kind, from its own overlaps alone: neither the order of
    images or segments nor a tie decides. IoU leaves predicted pixels on void out of the union, as in PQ.

    wrong_class: IoU > 0.5 with a segment of another category. split: the true segment's parts, two or more
    predictions of its category that lie on it with more than half of their pixels outside void, reach IoU > 0.5
    together; surplus parts of a matched segment are false predictions of this kind. merged: more than half of its
    pixels lie in one prediction of its category that covers another true segment of the category likewise.
    poor_mask: IoU > 0.1 with an unmatched prediction (with any true segment) of its category. Then, of the true,
    lost_to_void: more than half of its pixels have no predicted segment; missed: the rest. Of the predicted,
    false_positive: the rest.

    Areas are those of the maps, also where declared ones were trusted. mode: as for `match`; ValueError for another.
    """
    table = _with_areas_of_the_maps(table)
    matching = match(table, mode)
    own = _own_category(table, matching)
    claims = (_wrong_class(table, matching), own.rows[own.split], own.rows[own.merged], own.rows[own.poor])
    gt_type, gt_pair = _kinds(table.pairs["ground_truth"], claims, matching, matching.missed, MISSED)
    pred_type, pred_pair = _kinds(table.pairs["prediction"], claims, matching, matching.false_positive, FALSE_POSITIVE)
    gt_type[(gt_type == MISSED) & _mostly_on_void(table)] = LOST_TO_VOID
    return SegmentErrors(table, matching, gt_type, pred_type, gt_pair, pred_pair, own.joined_iou, _cut_iou(table, own))


@dataclass(frozen=True)
class _OwnCategory:
    """Pairs of one category, no crowds: rows of the table's pairs; and, of these, masks of what they are."""

    rows: IntArray
    split: BoolArray
    merged: BoolArray
    poor: BoolArray
    joined_iou: FloatArray


def _with_areas_of_the_maps(table: OverlapTable) -> OverlapTable:
    ground_truth = table.ground_truth.copy()
    ground_truth["area_px"] = ground_truth["counted_px"]
    return replace(table, ground_truth=ground_truth)


def _own_category(table: OverlapTable, matching: Matching) -> _OwnCategory:
    rows = np.flatnonzero(same_category(table))
    ground_truth, prediction, pixels = (table.pairs[name][rows] for name in ("ground_truth", "prediction", "pixels"))
    outside_void = table.prediction["counted_px"] - compute_void_px(table, "pixels")
    gt_px = table.ground_truth["counted_px"]
    part = (2 * pixels > outside_void[prediction]) & ~matching.ignored[prediction]
    joined = _joined_iou(gt_px, ground_truth[part], pixels[part], outside_void[prediction[part]])
    covers = 2 * pixels > gt_px[ground_truth]
    covered = np.bincount(prediction[covers], minlength=len(table.prediction))
    unmatched = matching.false_positive | matching.ignored
    return _OwnCategory(
        rows,
        split=part & (joined[ground_truth] > 0),
        merged=covers & (covered[prediction] > 1),
        poor=(matching.iou[rows] > POOR_IOU) & unmatched[prediction],
        joined_iou=joined,
    )


def _joined_iou(gt_px: IntArray, ground_truth: IntArray, pixels: IntArray, extent_px: IntArray) -> FloatArray:
    """(T,) IoU of the parts of every true segment together, 0 where it has fewer than two or they do not match it.

    ground truth, pixels, extent_px: of every part the true segment, the pixels shared and the pixels outside void. A
    part has more of its pixels on the segment than off it, so each raises the IoU: a matched segment's never falls.
    """
    number = len(gt_px)
    shared, extent = (np.bincount(ground_truth, weights=column, minlength=number) for column in (pixels, extent_px))
    iou = shared / (gt_px + extent - shared)
    return np.where((np.bincount(ground_truth, minlength=number) > 1) & (iou > MATCH_IOU), iou, 0.0)


def _cut_iou(table: OverlapTable, own: _OwnCategory) -> FloatArray:
    """(T,) IoU with its own part of the merging prediction, cut along the true segment."""
    pairs = table.pairs[own.rows[own.merged]]
    cut = np.zeros(len(table.ground_truth))
    cut[pairs["ground_truth"]] = pairs["pixels"] / table.ground_truth["counted_px"][pairs["ground_truth"]]
    return cut


def _wrong_class(table: OverlapTable, matching: Matching) -> IntArray:
    """Pairs of different categories that would match in one; crowds among the true."""
    rows = np.flatnonzero(matching.iou > MATCH_IOU)
    ground_truth, prediction = table.pairs["ground_truth"][rows], table.pairs["prediction"][rows]
    wrong: IntArray = rows[
        table.ground_truth["category_id"][ground_truth] != table.prediction["category_id"][prediction]
    ]
    return wrong


def _kinds(
    segments: NDArray[np.int32], claims: Sequence[IntArray], matching: Matching, at_fault: BoolArray, rest: int
) -> tuple[IntArray, IntArray]:
    """Kind and pair of every segment of one side; segments: that side's column of the pairs; claims: the pairs that
    make each of the first kinds; rest: the kind of those at fault that no pair claims."""
    kinds = np.where(at_fault, rest, NO_ERROR)
    pairs = best_pairs(segments, np.flatnonzero(matching.iou > 0), matching.iou, len(at_fault))
    for kind in reversed(range(len(claims))):  # the first kind has the last word
        best = best_pairs(segments, claims[kind], matching.iou, len(at_fault))
        claimed = at_fault & (best != NO_PAIR)
        kinds[claimed], pairs[claimed] = kind, best[claimed]
    return kinds, np.where(at_fault, pairs, NO_PAIR)


def best_pairs(segments: NDArray[np.int32], rows: IntArray, iou: FloatArray, number: int) -> IntArray:
    """Of each of a number of segments the pair of greatest IoU among `rows`, the first of equals; else NO_PAIR."""
    ascending = rows[np.lexsort((-rows, iou[rows]))]
    best = np.full(number, NO_PAIR)
    best[segments[ascending]] = ascending  # of several values for a place the last stays
    return best


def _mostly_on_void(table: OverlapTable) -> BoolArray:
    """(T,) true segments with more than half of their pixels in no predicted segment."""
    on_void = table.pairs[table.pairs["prediction"] == ON_VOID]
    pixels = np.zeros(len(table.ground_truth), dtype=np.int64)
    pixels[on_void["ground_truth"]] = on_void["pixels"]
    mostly: BoolArray = 2 * pixels > table.ground_truth["counted_px"]
    return mostly
