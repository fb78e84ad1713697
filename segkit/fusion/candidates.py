"""Which instances take part in a fusion, and in which order: score thresholds and suppression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import InstanceMasks

FloatArray = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)
Window = tuple[slice, slice]  # rows and columns of an image

NMS_KINDS = ("none", "box", "mask")
ROWS_AT_ONCE = 256  # of the matrix of IoUs


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
        lows, highs = np.hsplit(instances.boxes_xyxy[rows].astype(np.float64), 2)
        areas = _compute_areas(lows, highs)
    else:
        lows = instances.corners_xy[rows].astype(np.float64)
        highs = lows + np.reshape([instances.crops[row].shape[::-1] for row in rows], (-1, 2))
        areas = instances.areas_px[rows].astype(np.float64)
    is_selected = np.zeros(len(rows), dtype=np.bool_)
    for index, ious in enumerate(_generate_ious(lows, highs, areas, at_most_areas=nms == "mask")):
        rivals = np.flatnonzero(is_selected & (ious > threshold))
        if nms == "mask" and len(rivals):  # whose IoU is at most that of `ious`
            shared = [count_shared_px(instances, rows[index], rows[rival]) for rival in rivals.tolist()]
            exact = _compute_ious(areas[index], areas[rivals], np.array(shared, dtype=np.float64))
            highest = float(exact.max())
        else:
            highest = float(ious[rivals].max(initial=0))
        if highest <= threshold:
            is_selected[index] = True
        elif rejections is not None:
            rejections.instances[rows[index]] = Rejection("nms", highest, threshold)
    return [row for row, selected in zip(rows, is_selected.tolist(), strict=True) if selected]


def _generate_ious(lows: FloatArray, highs: FloatArray, areas: FloatArray, at_most_areas: bool) -> Iterator[FloatArray]:
    """Yields for each rectangle its IoU with all, (N,); at_most_areas: no two share more pixels than their areas."""
    for start in range(0, len(areas), ROWS_AT_ONCE):  # a matrix of all pairs may fill the memory
        block = slice(start, start + ROWS_AT_ONCE)
        shared = _compute_areas(np.maximum(lows[block, None], lows), np.minimum(highs[block, None], highs))
        if at_most_areas:
            shared = np.minimum(np.minimum(shared, areas[block, None]), areas)
        yield from _compute_ious(areas[block, None], areas, shared)


def _compute_areas(lows_xy: FloatArray, highs_xy: FloatArray) -> FloatArray:
    """(...): areas of rectangles from lows to highs, (..., 2) each; 0 if a rectangle ends before it begins."""
    areas: FloatArray = np.maximum(highs_xy - lows_xy, 0).prod(axis=-1)
    return areas


def _compute_ious(area: FloatArray | float, areas: FloatArray, shared: FloatArray) -> FloatArray:
    union = area + areas - shared
    ious: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious
