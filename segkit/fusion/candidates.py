"""Which instances take part in a fusion, and in which order: score thresholds and suppression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.fates import Verdict, Verdicts
from segkit.structures import InstanceMasks

NMS_KINDS = ("none", "box", "mask")


def candidates(
    instances: InstanceMasks,
    score_threshold: float,
    score_threshold_of: Mapping[int, float],
    nms: str,
    nms_threshold: float,
    verdicts: Verdicts | None,
) -> list[int]:
    """The rows that are good enough, by falling score, of equal scores the earlier one first.

    score_threshold: an instance below it is left out; score_threshold_of: by thing contiguous id, instead of it. nms:
    "box" or "mask" then leaves out an instance whose box (mask) has an IoU above nms_threshold with that of a better
    one that stays, whatever their classes (MMDetection feeds its heuristic fusion so: models/roi_heads and
    models/seg_heads/panoptic_fusion_heads/heuristic_fusion_head.py); "none" keeps all.
    """
    rows = np.argsort(-instances.scores, kind="stable")
    limits = np.full(len(rows), score_threshold, dtype=np.float64)
    for class_id, limit in score_threshold_of.items():
        limits[instances.class_ids == class_id] = limit
    good = instances.scores >= limits
    if verdicts is not None:
        for row in rows[~good[rows]].tolist():
            verdicts.instances[row] = Verdict("score", float(instances.scores[row]), float(limits[row]))
    kept = rows[good[rows]].tolist()
    return kept if nms == "none" else _suppress(instances, kept, nms, nms_threshold, verdicts)


def _suppress(
    instances: InstanceMasks, rows: list[int], nms: str, threshold: float, verdicts: Verdicts | None
) -> list[int]:
    kept: list[int] = []
    areas_px = [int(np.count_nonzero(crop)) for crop in instances.crops]
    for row in rows:
        if nms == "box":
            ious = _box_ious(instances.boxes_xyxy[row], instances.boxes_xyxy[kept])
            worst = float(ious.max(initial=0))
        else:
            worst = max((_mask_iou(instances, row, other, areas_px) for other in kept), default=0.0)
        if worst > threshold:
            if verdicts is not None:
                verdicts.instances[row] = Verdict("nms", worst, threshold)
            continue
        kept.append(row)
    return kept


def _box_ious(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    one, many = box.astype(np.float64), others.astype(np.float64)
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    either = np.prod(one[2:] - one[:2]) + np.prod(many[:, 2:] - many[:, :2], axis=1) - shared
    ious: NDArray[np.float64] = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return ious


def _mask_iou(instances: InstanceMasks, one: int, other: int, areas_px: list[int]) -> float:
    shared = shared_px(instances, one, other)
    either = areas_px[one] + areas_px[other] - shared
    return shared / either if either else 0.0


def shared_px(instances: InstanceMasks, one: int, other: int) -> int:
    """Pixels that two masks share."""
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
