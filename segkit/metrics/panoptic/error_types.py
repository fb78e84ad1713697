"""Why a segment has no match: one type of error for every missed segment and every false positive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.matching import (
    MATCH_IOU,
    BoolArray,
    FloatArray,
    IntArray,
    Matching,
    compute_void_px,
    find_same_category,
    match,
)
from segkit.metrics.panoptic.overlaps import OverlapTable

POOR_IOU = 0.1  # a poor mask is strictly above (Bolya et al. 2020, TIDE, section 2.2: t_b)
# In order of precedence: a segment has the first type that applies.
ERROR_TYPES = ("wrong_class", "split", "merged", "poor_mask", "lost_to_void", "missed", "false_positive")
LOST_TO_VOID, MISSED, FALSE_POSITIVE = map(ERROR_TYPES.index, ("lost_to_void", "missed", "false_positive"))
NO_ERROR = -1
NO_PAIR = -1


@dataclass(frozen=True)
class SegmentErrors:
    """The error type of every missed ground truth segment and of every false positive of a table.

    Attributes:
        table: The table that was analysed; its areas are those of the maps.
        matching: Its matches.
        gt_type: (T,) int64 index into `ERROR_TYPES`; `NO_ERROR` for matched segments and crowds.
        pred_type: (P,) int64 index into `ERROR_TYPES`; `NO_ERROR` for matched and ignored segments.
        gt_pair: (T,) int64 row of `table.pairs`: the pair of greatest IoU of those that make the type, or of all if
            the type is that nothing overlaps enough; of equals the first. `NO_PAIR` without an error or any overlap.
        pred_pair: (P,) int64, the same for predicted segments.
        joined_iou: (T,) float64 IoU of all parts of a split segment together, matched ones included; 0 elsewhere.
        cut_iou: (T,) float64 share of the segment's pixels inside the prediction that merges it with others, matched
            ones included; 0 elsewhere.
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
    """Give every unmatched segment that counts exactly one error type, from its own overlaps alone.

    Neither the order of images or segments nor a tie decides. IoU leaves predicted pixels on void out of the union, as
    in PQ. Areas are those of the maps, also if declared areas were trusted. The types, first to last:

    - wrong_class: IoU > 0.5 with a segment of another category.
    - split: two or more predictions of the category, each with more than half of its pixels outside void on the ground
      truth segment, reach IoU > 0.5 together. Surplus parts of a matched segment are false positives of this type.
    - merged: more than half of the segment is in one prediction of its category, which covers another ground truth
      segment of the category in the same way.
    - poor_mask: IoU > 0.1 with an unmatched prediction of the category; of a prediction, with any ground truth segment
      of its category.
    - lost_to_void (ground truth): more than half of the segment has no predicted segment.
    - missed (ground truth), false_positive (predictions): all other segments.

    `mode` is that of `match`; ValueError for an unknown one.
    """
    table = replace(table, ground_truth=table.ground_truth.copy())
    table.ground_truth["area_px"] = table.ground_truth["counted_px"]
    matching = match(table, mode)
    # Pairs of one category, without crowds: `rows` of the table, and their columns.
    rows = np.flatnonzero(find_same_category(table))
    gt, prediction, pixels = (table.pairs[name][rows] for name in ("ground_truth", "prediction", "pixels"))
    gt_px = table.ground_truth["counted_px"]
    outside_void = table.prediction["counted_px"] - compute_void_px(table, "pixels")
    is_part = (2 * pixels > outside_void[prediction]) & ~matching.ignored[prediction]
    joined_iou = _compute_joined_iou(gt_px, gt[is_part], pixels[is_part], outside_void[prediction[is_part]])
    covers = 2 * pixels > gt_px[gt]
    is_merged = covers & (np.bincount(prediction[covers], minlength=len(table.prediction))[prediction] > 1)
    is_poor = (matching.iou[rows] > POOR_IOU) & (matching.false_positive | matching.ignored)[prediction]
    is_one_category = find_same_category(table, np.ones(len(gt_px), dtype=np.bool_))  # also of crowds
    wrong_class = np.flatnonzero((matching.iou > MATCH_IOU) & ~is_one_category)
    candidates = wrong_class, rows[is_part & (joined_iou[gt] > 0)], rows[is_merged], rows[is_poor]
    gt_type, gt_pair = _assign(table.pairs["ground_truth"], candidates, matching, matching.missed, MISSED)
    pred_type, pred_pair = _assign(
        table.pairs["prediction"], candidates, matching, matching.false_positive, FALSE_POSITIVE
    )
    is_on_void = 2 * compute_void_px(table, "pixels", "ground_truth") > gt_px
    gt_type[(gt_type == MISSED) & is_on_void] = LOST_TO_VOID
    cut_iou = np.zeros(len(gt_px))
    cut_iou[gt[is_merged]] = pixels[is_merged] / gt_px[gt[is_merged]]
    return SegmentErrors(table, matching, gt_type, pred_type, gt_pair, pred_pair, joined_iou, cut_iou)


def find_best_pairs(segments: NDArray[np.int32], rows: IntArray, iou: FloatArray, number: int) -> IntArray:
    """(number,) the pair of greatest IoU of every segment among `rows`, the first of equals; NO_PAIR without any.

    segments: the column of the pairs that holds the segments.
    """
    ascending = rows[np.lexsort((-rows, iou[rows]))]
    best = np.full(number, NO_PAIR)
    best[segments[ascending]] = ascending  # of several values for an index the last one stays
    return best


def _compute_joined_iou(gt_px: IntArray, gt_rows: IntArray, pixels: IntArray, extent_px: IntArray) -> FloatArray:
    """(T,) IoU of the parts of every ground truth segment together; 0 with fewer than two parts or without a match.

    gt_rows, pixels, extent_px: of every part the ground truth segment, the shared pixels and the pixels outside void.
    A part has more of its pixels on the segment than off it, so each raises the IoU: a matched segment's never falls.
    """
    shared, extent = (np.bincount(gt_rows, weights=column, minlength=len(gt_px)) for column in (pixels, extent_px))
    iou = shared / (gt_px + extent - shared)
    return np.where((np.bincount(gt_rows, minlength=len(gt_px)) > 1) & (iou > MATCH_IOU), iou, 0.0)


def _assign(
    segments: NDArray[np.int32], candidates: Sequence[IntArray], matching: Matching, in_error: BoolArray, rest: int
) -> tuple[IntArray, IntArray]:
    """Type and pair of every segment of one side.

    segments: that side's column of the pairs. candidates: the pairs that make each of the first types. rest: the type
    of the segments in error that no pair decides.
    """
    types = np.where(in_error, rest, NO_ERROR)
    pairs = find_best_pairs(segments, np.flatnonzero(matching.iou > 0), matching.iou, len(in_error))
    for error_type in reversed(range(len(candidates))):  # the first type overwrites the later ones
        best = find_best_pairs(segments, candidates[error_type], matching.iou, len(in_error))
        decided = in_error & (best != NO_PAIR)
        types[decided], pairs[decided] = error_type, best[decided]
    return types, np.where(in_error, pairs, NO_PAIR)
