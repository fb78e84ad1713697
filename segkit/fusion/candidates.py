"""Which instances take part in a fusion, and in which order: score thresholds and suppression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import InstanceMasks

FloatArray = NDArray[np.float64]

NMS_KINDS = ("none", "box", "mask")


def select_candidates(
    instances: InstanceMasks,
    score_threshold: float,
    class_score_thresholds: Mapping[int, float],
    nms: str,
    nms_threshold: float,
    rejections: RejectionLog | None,
) -> list[int]:
    """The rows that are good enough, by falling score, of equal scores the earlier one first.

    score_threshold: an instance below it is left out, the float32 score compared in float64, as Detectron2 does;
    class_score_thresholds: by thing contiguous id, instead of it. nms: "box" or "mask" then leaves out an instance
    whose box (mask) has an IoU above nms_threshold with that of a better one that stays, whatever their classes
    (detectors suppress boxes of one class: here two classes claim the same pixels); "none" keeps all. A box or mask
    without area has an IoU of 0 with all. verdicts: where given, told who is left out and why.
    """
    rows = np.argsort(-instances.scores, kind="stable")
    limits = np.full(len(rows), score_threshold, dtype=np.float64)
    for class_id, limit in class_score_thresholds.items():
        limits[instances.class_ids == class_id] = limit
    good = instances.scores >= limits
    if rejections is not None:
        for row in rows[~good[rows]].tolist():
            rejections.instances[row] = Rejection("score", float(instances.scores[row]), float(limits[row]))
    kept = rows[good[rows]].tolist()
    return kept if nms == "none" else _suppress(instances, kept, nms, nms_threshold, rejections)


def count_shared_px(instances: InstanceMasks, one: int, other: int) -> int:
    """Pixels that the masks of two rows share."""
    windows = instances.window(one), instances.window(other)
    lows = [max(axis.start for axis in axes) for axes in zip(*windows, strict=True)]
    highs = [min(axis.stop for axis in axes) for axes in zip(*windows, strict=True)]
    if lows[0] >= highs[0] or lows[1] >= highs[1]:
        return 0
    cut = []
    for row, (rows, columns) in zip((one, other), windows, strict=True):
        of_rows = slice(lows[0] - rows.start, highs[0] - rows.start)
        of_columns = slice(lows[1] - columns.start, highs[1] - columns.start)
        cut.append(instances.crops[row][of_rows, of_columns])
    return int(np.count_nonzero(cut[0] & cut[1]))


def _suppress(
    instances: InstanceMasks, rows: list[int], nms: str, threshold: float, rejections: RejectionLog | None
) -> list[int]:
    rects = instances.boxes_xyxy.astype(np.float64) if nms == "box" else _windows_xyxy(instances)
    lows, highs = rects[:, :2], rects[:, 2:]
    areas = _areas(lows, highs) if nms == "box" else _mask_areas(instances)
    kept: list[int] = []
    for row in rows:
        shared = _areas(np.maximum(lows[row], lows[kept]), np.minimum(highs[row], highs[kept]))
        if nms == "mask":
            shared = _shared_by_masks(instances, row, kept, areas, shared, threshold)
        worst = float(_ious(areas[row], areas[kept], shared).max(initial=0))
        if worst <= threshold:
            kept.append(row)
        elif rejections is not None:
            rejections.instances[row] = Rejection("nms", worst, threshold)
    return kept


def _windows_xyxy(instances: InstanceMasks) -> FloatArray:
    sides = np.array([crop.shape[::-1] for crop in instances.crops], dtype=np.int64).reshape(-1, 2)
    windows: FloatArray = np.hstack([instances.corners_xy, instances.corners_xy + sides]).astype(np.float64)
    return windows


def _mask_areas(instances: InstanceMasks) -> FloatArray:
    return np.array([np.count_nonzero(crop) for crop in instances.crops], dtype=np.float64)


def _areas(lows_xy: FloatArray, highs_xy: FloatArray) -> FloatArray:
    """(N,): of rectangles from lows to highs, (N, 2) each; 0 where one ends before it begins."""
    sides = np.maximum(highs_xy - lows_xy, 0)
    areas: FloatArray = sides[:, 0] * sides[:, 1]
    return areas


def _shared_by_masks(
    instances: InstanceMasks, row: int, kept: list[int], areas: FloatArray, windows_share: FloatArray, threshold: float
) -> FloatArray:
    """(len(kept),): shared pixels where the IoU may be above the threshold; elsewhere, too low to matter, 0."""
    most = np.minimum(np.minimum(windows_share, areas[row]), areas[kept])
    shared = np.zeros(len(kept))
    for index in np.flatnonzero(_ious(areas[row], areas[kept], most) > threshold).tolist():
        shared[index] = count_shared_px(instances, row, kept[index])
    return shared


def _ious(area: float, areas: FloatArray, shared: FloatArray) -> FloatArray:
    either = area + areas - shared
    ious: FloatArray = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return ious
