"""Which segments match, which are missed, which are false, by the rules of panopticapi's evaluation.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic.overlaps import ON_VOID, OverlapTable

MATCH_IOU = 0.5  # a match is strictly above (Kirillov et al. 2019, Panoptic Segmentation, section 4.1)
IGNORED_SHARE = 0.5  # an unmatched prediction is dropped with strictly more of it on void and crowd (panopticapi)
MODES = ("reference", "corrected")

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Matching:
    """iou: (N,) float64 of every pair of a `OverlapTable`, 0 where one side is void; matched: (N,) the matches.

    missed: (T,) true segments without a match, no crowds. false_positive: (P,) predicted ones without a match that
    count; ignored: (P,) those without a match that do not.
    """

    iou: FloatArray
    matched: BoolArray
    missed: BoolArray
    false_positive: BoolArray
    ignored: BoolArray


def match(table: OverlapTable, mode: str = "reference", *, boundary: bool = False) -> Matching:
    """Match by IoU > 0.5 within a category; the union leaves out predicted pixels on void.

    mode: "reference" is panopticapi's: of several crowds of a category in an image the last listed hides false
    predictions; "corrected": all of them do, and areas are those of the map whatever was declared.
    boundary: the IoU is the smaller of mask and boundary IoU (Cheng et al. 2021, Boundary IoU, section 6).
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    iou = ious(table, "counted_px" if mode == "corrected" else "area_px", "pixels")
    if boundary:
        iou = np.minimum(iou, ious(table, "boundary_px", "boundary_px"))
    matched = same_category(table) & (iou > MATCH_IOU)
    gt_matched = np.zeros(len(table.ground_truth), dtype=np.bool_)
    gt_matched[table.pairs["ground_truth"][matched]] = True
    found = np.zeros(len(table.prediction), dtype=np.bool_)
    found[table.pairs["prediction"][matched]] = True
    ignored_px = compute_void_px(table, "pixels") + _compute_crowd_px(table, mode)
    ignored = ~found & (ignored_px / table.prediction["counted_px"] > IGNORED_SHARE)
    return Matching(iou, matched, ~gt_matched & ~table.ground_truth["iscrowd"], ~found & ~ignored, ignored)


def ious(table: OverlapTable, area: str, shared: str) -> FloatArray:
    """(N,) IoU of every pair; area, shared: the columns of segments and of pairs that hold the pixels."""
    pairs = table.pairs
    inside = (pairs["ground_truth"] != ON_VOID) & (pairs["prediction"] != ON_VOID)
    ground_truth, prediction = pairs["ground_truth"][inside], pairs["prediction"][inside]
    intersection = pairs[shared][inside]
    # The predicted area is never declared, always counted: `area_px` and `counted_px` are one there.
    union = table.prediction[area][prediction] + table.ground_truth[area][ground_truth] - intersection
    union = union - compute_void_px(table, shared)[prediction]
    iou = np.zeros(len(pairs))
    with np.errstate(divide="ignore", invalid="ignore"):  # declared areas may be anything
        iou[inside] = intersection / union
    return iou


def same_category(table: OverlapTable) -> BoolArray:
    """(N,) pairs of a true segment that is no crowd and a predicted one, both of one category."""
    pairs = table.pairs
    same: BoolArray = (pairs["ground_truth"] != ON_VOID) & (pairs["prediction"] != ON_VOID)
    ground_truth, prediction = (
        table.ground_truth[pairs["ground_truth"][same]],
        table.prediction[pairs["prediction"][same]],
    )
    same[same] = (ground_truth["category_id"] == prediction["category_id"]) & ~ground_truth["iscrowd"]
    return same


def compute_void_px(table: OverlapTable, shared: str) -> NDArray[np.int64]:
    """(P,) pixels of every predicted segment on void."""
    on_void = table.pairs[table.pairs["ground_truth"] == ON_VOID]
    pixels = np.zeros(len(table.prediction), dtype=np.int64)
    pixels[on_void["prediction"]] = on_void[shared]
    return pixels


def _compute_crowd_px(table: OverlapTable, mode: str) -> NDArray[np.int64]:
    """(P,) pixels of every predicted segment on the crowds of its category that hide it."""
    hides = table.ground_truth["iscrowd"].copy()
    if mode == "reference":
        hides &= _last_of_category(table)
    pairs = table.pairs[(table.pairs["ground_truth"] != ON_VOID) & (table.pairs["prediction"] != ON_VOID)]
    pairs = pairs[hides[pairs["ground_truth"]]]
    ground_truth, prediction = (
        table.ground_truth["category_id"][pairs["ground_truth"]],
        table.prediction["category_id"][pairs["prediction"]],
    )
    pairs = pairs[ground_truth == prediction]
    pixels = np.zeros(len(table.prediction), dtype=np.int64)
    np.add.at(pixels, pairs["prediction"], pairs["pixels"])
    return pixels


def _last_of_category(table: OverlapTable) -> BoolArray:
    """(T,) crowds with no later crowd of their category in their image."""
    crowds = np.flatnonzero(table.ground_truth["iscrowd"])[::-1]  # backwards: the first met is the last listed
    keys = np.stack([table.gt_image[crowds], table.ground_truth["category_id"][crowds]], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    last = np.zeros(len(table.ground_truth), dtype=np.bool_)
    last[crowds[first]] = True
    return last
