"""Which segments match, which are missed and which are false positives, by the rules of panopticapi's evaluation.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.overlaps import ON_VOID, OverlapTable

MATCH_IOU = 0.5  # a match is strictly above (Kirillov et al. 2019, Panoptic Segmentation, section 4.1)
IGNORED_SHARE = 0.5  # a larger share on void and crowds makes an unmatched prediction ignored (panopticapi)
MODES = ("reference", "corrected")

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """The matches of an `OverlapTable`.

    Attributes:
        iou: (N,) float64 IoU of every pair, 0 if one side is void.
        matched: (N,) pairs that match.
        missed: (T,) ground truth segments without a match, no crowds.
        false_positive: (P,) predicted segments without a match that count.
        ignored: (P,) predicted segments without a match that do not count.
    """

    iou: FloatArray
    matched: BoolArray
    missed: BoolArray
    false_positive: BoolArray
    ignored: BoolArray


def match(table: OverlapTable, mode: str = "reference", *, boundary: bool = False) -> Matching:
    """Match by IoU > 0.5 within a category; the union leaves out predicted pixels on void.

    Args:
        table: The segments of all images.
        mode: "reference" as panopticapi: of several crowds of a category in an image, only the last listed one hides
            false positives. "corrected": all of them do, and areas are those of the map whatever was declared.
        boundary: Match by the smaller of mask and boundary IoU (Cheng et al. 2021, Boundary IoU, section 6).

    Returns:
        The matches.

    Raises:
        ValueError: The mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    iou = compute_ious(table, "counted_px" if mode == "corrected" else "area_px", "pixels")
    if boundary:
        iou = np.minimum(iou, compute_ious(table, "boundary_px", "boundary_px"))
    matched = find_same_category(table) & (iou > MATCH_IOU)
    gt_matched = np.zeros(len(table.ground_truth), dtype=np.bool_)
    gt_matched[table.pairs["ground_truth"][matched]] = True
    pred_matched = np.zeros(len(table.prediction), dtype=np.bool_)
    pred_matched[table.pairs["prediction"][matched]] = True
    ignored_px = compute_void_px(table, "pixels") + _compute_crowd_px(table, mode)
    ignored = ~pred_matched & (ignored_px / table.prediction["counted_px"] > IGNORED_SHARE)
    missed = ~gt_matched & ~table.ground_truth["iscrowd"]
    return Matching(iou, matched, missed, ~pred_matched & ~ignored, ignored)


def compute_ious(table: OverlapTable, area: str, shared: str) -> FloatArray:
    """(N,) IoU of every pair; area, shared: the columns of segments and of pairs that hold the pixels."""
    pairs = table.pairs
    inside = _find_inside(table)
    gt_row, pred_row = pairs["ground_truth"][inside], pairs["prediction"][inside]
    intersection = pairs[shared][inside]
    # Predicted areas are never declared, always counted: `area_px` equals `counted_px`.
    union = table.prediction[area][pred_row] + table.ground_truth[area][gt_row] - intersection
    union = union - compute_void_px(table, shared)[pred_row]
    iou = np.zeros(len(pairs))
    with np.errstate(divide="ignore", invalid="ignore"):  # declared areas may be anything
        iou[inside] = intersection / union
    return iou


def find_same_category(table: OverlapTable, gt_mask: BoolArray | None = None) -> BoolArray:
    """(N,) pairs of a predicted segment and a ground truth segment of its category.

    gt_mask: (T,) the ground truth segments to look at; None is all but crowds.
    """
    gt_mask = ~table.ground_truth["iscrowd"] if gt_mask is None else gt_mask
    same = _find_inside(table)
    gt, prediction = table.pairs["ground_truth"][same], table.pairs["prediction"][same]
    in_one_category = table.ground_truth["category_id"][gt] == table.prediction["category_id"][prediction]
    same[same] = in_one_category & gt_mask[gt]
    return same


def compute_void_px(table: OverlapTable, shared: str, side: str = "prediction") -> IntArray:
    """Pixels of every segment on void of the other side; (P,) of predicted, (T,) of ground truth segments.

    shared: the column of pairs that holds the pixels. side: "prediction" or "ground_truth".
    """
    other_side = "ground_truth" if side == "prediction" else "prediction"
    on_void = table.pairs[table.pairs[other_side] == ON_VOID]
    pixels = np.zeros(len(getattr(table, side)), dtype=np.int64)
    pixels[on_void[side]] = on_void[shared]
    return pixels


def _find_inside(table: OverlapTable) -> BoolArray:
    """(N,) pairs of two segments, without void."""
    inside: BoolArray = (table.pairs["ground_truth"] != ON_VOID) & (table.pairs["prediction"] != ON_VOID)
    return inside


def _compute_crowd_px(table: OverlapTable, mode: str) -> IntArray:
    """(P,) pixels of every predicted segment on the crowds of its category that hide it."""
    hides = table.ground_truth["iscrowd"].copy()
    if mode == "reference":
        hides &= _find_last_crowds(table)
    pairs = table.pairs[find_same_category(table, hides)]
    pixels = np.zeros(len(table.prediction), dtype=np.int64)
    np.add.at(pixels, pairs["prediction"], pairs["pixels"])
    return pixels


def _find_last_crowds(table: OverlapTable) -> BoolArray:
    """(T,) crowds with no later crowd of their category in their image."""
    crowds = np.flatnonzero(table.ground_truth["iscrowd"])[::-1]  # backwards: the first occurrence is the last listed
    keys = np.stack([table.gt_image[crowds], table.ground_truth["category_id"][crowds]], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    last = np.zeros(len(table.ground_truth), dtype=np.bool_)
    last[crowds[first]] = True
    return last
