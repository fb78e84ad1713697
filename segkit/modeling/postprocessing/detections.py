"""Detections of a batch of images as tensors of one shape: in order, good enough, not suppressed."""

from __future__ import annotations

from typing import NamedTuple

import torch

from segkit.fusion import HeuristicFusion

NAN_INSTANCES, NAN_LOGITS, STUFF_RANGE, NEGATIVE_CLASS, NO_CHANNEL, NO_THINGS = (2**i for i in range(6))  # bits
INPUT_ERRORS = {
    NAN_INSTANCES: "boxes and scores must be finite, mask_probs in [0, 1], got others: did the training diverge?",
    NAN_LOGITS: "logits must be finite, got NaN or infinity: did the training diverge?",
    STUFF_RANGE: "stuff_map must be in 0..stuff_count, got an id outside",
    NEGATIVE_CLASS: "class_ids of instances must not be negative, got one that is",
    NO_THINGS: "the semantic map has no channel of things, but there are instances",
    NO_CHANNEL: "the semantic map has no channel for the class of an instance, nor one for all things",
}


class Detections(NamedTuple):
    """N rows of each of B images; without the leading B, of one image.

    mask_probs: (B, N, m, m') float in [0, 1]. boxes_xyxy: (B, N, 4) float, pixels. scores: (B, N) float. class_ids:
    (B, N) int64, thing contiguous ids. valid: (B, N) bool; the other rows are padding, whatever they hold.
    """

    mask_probs: torch.Tensor
    boxes_xyxy: torch.Tensor
    scores: torch.Tensor
    class_ids: torch.Tensor
    valid: torch.Tensor


def build_valid_rows(counts: torch.Tensor, total: int) -> torch.Tensor:
    """(B, total) bool: `Detections.valid` where the first counts[b] rows are instances; counts: (B,) integers."""
    return torch.arange(total, device=counts.device) < counts[:, None]


def build_class_thresholds(rule: HeuristicFusion) -> torch.Tensor:
    """(2, K) float64: thing contiguous ids that have a lowest score of their own, and those scores.

    Make it once and keep it on the device: to move it there is a synchronisation.
    """
    of_class = sorted(rule.class_score_thresholds.items())
    return torch.tensor(of_class, dtype=torch.float64).reshape(-1, 2).T.contiguous()


def find_input_errors(found: Detections, nan_logits: torch.Tensor | None) -> torch.Tensor:
    """(B,) int64: what is wrong with the valid rows, and with the logits if the (B,) bool says so: `INPUT_ERRORS`."""
    finite = found.boxes_xyxy.isfinite().all(2) & found.scores.isfinite()
    probable = (found.mask_probs >= 0) & (found.mask_probs <= 1)  # NaN is neither
    sound = finite & probable.flatten(2).all(2)
    problems = (~sound & found.valid).any(1) * NAN_INSTANCES
    problems = problems + ((found.class_ids < 0) & found.valid).any(1) * NEGATIVE_CLASS
    return problems if nan_logits is None else problems + nan_logits * NAN_LOGITS


def sort_by_score(found: Detections) -> tuple[Detections, torch.Tensor]:
    """Rows by falling score, padding last, of equal ones the earlier first; (B, N) int64, which valid row each was."""
    instance_ids = found.valid.long().cumsum(1) - 1
    scores = torch.where(found.valid, found.scores.float(), -torch.inf)
    order = _stable_order(scores)
    probs = found.mask_probs.gather(1, order[:, :, None, None].expand_as(found.mask_probs))
    boxes = found.boxes_xyxy.gather(1, order[:, :, None].expand_as(found.boxes_xyxy))
    rest = (found.scores.gather(1, order), found.class_ids.gather(1, order), found.valid.gather(1, order))
    return Detections(probs, boxes, *rest), instance_ids.gather(1, order)


def select_candidate_rows(
    best: Detections,
    score_threshold: float,
    limits: torch.Tensor | None = None,
    nms_threshold: float | None = None,
) -> torch.Tensor:
    """(B, N) bool: the rows that are good enough and not suppressed, as segkit/fusion/candidates.py says.

    best: of `sort_by_score`. limits: of `build_class_thresholds`. nms_threshold: suppress by boxes; None: not at all.
    """
    limit: torch.Tensor | float = score_threshold
    if limits is not None:
        own = best.class_ids[:, :, None] == limits[0]
        limit = torch.where(own.any(2), torch.where(own, limits[1], 0.0).sum(2), score_threshold)
    good = best.valid & (best.scores.double() >= limit)
    return good if nms_threshold is None else _box_nms(best.boxes_xyxy, good, nms_threshold)


def _stable_order(scores: torch.Tensor) -> torch.Tensor:
    """(B, N) int64, the indices by falling score: counted, since ONNX has no stable sort."""
    rows = torch.arange(scores.shape[1], device=scores.device)
    one, other = scores[:, :, None], scores[:, None, :]
    place = ((other > one) | ((other == one) & (rows < rows[:, None]))).sum(2)
    return torch.zeros_like(place).scatter(1, place, rows.expand_as(place))


def _box_nms(boxes_xyxy: torch.Tensor, good: torch.Tensor, threshold: float) -> torch.Tensor:
    """Of rows by falling score those whose box has no IoU above the threshold with that of a better one that stays."""
    close = _box_ious(boxes_xyxy.double()) > threshold
    suppressed = torch.zeros_like(good)
    kept = []
    for row in range(good.shape[1]):
        keep = good[:, row] & ~suppressed[:, row]
        suppressed = suppressed | (keep[:, None] & close[:, row])
        kept.append(keep)
    return torch.stack(kept, dim=1) if kept else good


def _box_ious(boxes: torch.Tensor) -> torch.Tensor:
    """(B, N, N), 0 where both boxes are empty."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(3)
    areas = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(2)
    either = areas[:, :, None] + areas[:, None, :] - shared
    return torch.where(either > 0, shared / either, 0.0)
