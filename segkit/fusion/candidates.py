"""Which instances take part in a fusion, and in which order: score thresholds and suppression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import InstanceMasks

FloatArray = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)
Window = tuple[slice, slice]  # rows and columns of an image

NMS_KINDS = ("none", "box", "mask")


def select_candidates(
    instances: InstanceMasks,
    score_threshold: float,
    class_score_thresholds: Mapping[int, float],
    nms: str,
    nms_threshold: float,
    rejections: RejectionLog | None,
) -> list[int]:
    """Select the rows with a sufficient score that are not suppressed.

    Suppression ignores classes. Detectors suppress boxes within a class, but here two classes compete for the same
    pixels. A box or mask without area has an IoU of 0 with every other one.

    Args:
        instances: Instances of one image.
        score_threshold: Lowest score. The float32 score is compared in float64, as Detectron2 does.
        class_score_thresholds: Lowest score by thing contiguous id, instead of score_threshold.
        nms: "box" or "mask" suppresses by boxes or by binary masks, "none" suppresses nothing.
        nms_threshold: Highest IoU with a better instance that is not suppressed itself.
        rejections: Log for the instances that are left out, or None.

    Returns:
        Rows by falling score, of equal scores the earlier row first.
    """
    rows = np.argsort(-instances.scores, kind="stable")
    limits = np.full(len(rows), score_threshold, dtype=np.float64)
    for class_id, limit in class_score_thresholds.items():
        limits[instances.class_ids == class_id] = limit
    has_score = instances.scores >= limits
    if rejections is not None:
        for row in rows[~has_score[rows]].tolist():
            rejections.instances[row] = Rejection("score", float(instances.scores[row]), float(limits[row]))
    selected = rows[has_score[rows]].tolist()
    return selected if nms == "none" else _suppress(instances, selected, nms, nms_threshold, rejections)


def count_shared_px(instances: InstanceMasks, row_a: int, row_b: int) -> int:
    """Pixels that the masks of two rows share."""
    window_a, window_b = instances.window(row_a), instances.window(row_b)
    part_a = cut_to_window(instances.crops[row_a], window_a, window_b)
    return int(np.count_nonzero(part_a & cut_to_window(instances.crops[row_b], window_b, window_a)))


def cut_to_window(values: NDArray[Scalar], window: Window, other_window: Window) -> NDArray[Scalar]:
    """Cut the values of a window of the image to the part that another window shares.

    Args:
        values: (h, w), the values at the rows and columns of `window`.
        window: (rows, columns) of the image.
        other_window: (rows, columns) of the image.

    Returns:
        A view of the values in both windows, empty if the windows are apart.
    """
    rows, columns = (
        slice(max(0, other.start - axis.start), max(0, other.stop - axis.start))
        for axis, other in zip(window, other_window, strict=True)
    )
    return values[rows, columns]


def _suppress(
    instances: InstanceMasks, rows: list[int], nms: str, threshold: float, rejections: RejectionLog | None
) -> list[int]:
    if nms == "box":
        lows, highs = np.hsplit(instances.boxes_xyxy.astype(np.float64), 2)
        areas = _compute_areas(lows, highs)
    else:
        lows = instances.corners_xy.astype(np.float64)
        highs = lows + np.reshape([crop.shape[::-1] for crop in instances.crops], (-1, 2))
        areas = instances.areas_px.astype(np.float64)
    selected: list[int] = []
    for row in rows:
        shared = _compute_areas(np.maximum(lows[row], lows[selected]), np.minimum(highs[row], highs[selected]))
        if nms == "mask":
            shared = _count_shared_by_masks(instances, row, selected, areas, shared, threshold)
        highest = float(_compute_ious(areas[row], areas[selected], shared).max(initial=0))
        if highest <= threshold:
            selected.append(row)
        elif rejections is not None:
            rejections.instances[row] = Rejection("nms", highest, threshold)
    return selected


def _compute_areas(lows_xy: FloatArray, highs_xy: FloatArray) -> FloatArray:
    """(N,): areas of rectangles from lows to highs, (N, 2) each; 0 if a rectangle ends before it begins."""
    areas: FloatArray = np.maximum(highs_xy - lows_xy, 0).prod(axis=1)
    return areas


def _count_shared_by_masks(
    instances: InstanceMasks,
    row: int,
    selected: list[int],
    areas: FloatArray,
    shared_by_windows: FloatArray,
    threshold: float,
) -> FloatArray:
    """(len(selected),): shared pixels if the IoU may be above the threshold, else 0."""
    most = np.minimum(np.minimum(shared_by_windows, areas[row]), areas[selected])
    shared = np.zeros(len(selected))
    for index in np.flatnonzero(_compute_ious(areas[row], areas[selected], most) > threshold).tolist():
        shared[index] = count_shared_px(instances, row, selected[index])
    return shared


def _compute_ious(area: float, areas: FloatArray, shared: FloatArray) -> FloatArray:
    union = area + areas - shared
    ious: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious
