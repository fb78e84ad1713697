"""Detectron2's RPN and ROI heads without the numbers that they read back from the device at each step to log them."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import cat
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads import fast_rcnn, mask_head
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.roi_heads import ROIHeads
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage

logger = logging.getLogger(__name__)

_compute_logged_mask_loss = mask_head.mask_rcnn_loss


@contextmanager
def heads_logging(enabled: bool) -> Iterator[None]:
    """Let Detectron2's heads log in the block, or not.

    Without logging, functions of Detectron2 are replaced by equal ones: the losses are the same to the bit, and so are
    the random numbers that are drawn. A function whose source is not the known one stays, with one line in the log.

    Args:
        enabled: True: Detectron2's own functions.

    Yields:
        Nothing.
    """
    if enabled:
        yield
        return
    replaced = [(owner, name, getattr(owner, name)) for owner, name in _find_known()]
    for owner, name, _ in replaced:
        setattr(owner, name, QUIET[owner, name][1])
    try:
        yield
    finally:
        for owner, name, function in replaced:
            setattr(owner, name, function)


def compute_rpn_losses(
    rpn: RPN,
    anchors: list[Boxes],
    pred_objectness_logits: list[torch.Tensor],
    gt_labels: list[torch.Tensor],
    pred_anchor_deltas: list[torch.Tensor],
    gt_boxes: list[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """`RPN.losses` without logging; its arguments and losses."""
    labels = torch.stack(gt_labels)
    regression = {"box_reg_loss_type": rpn.box_reg_loss_type, "smooth_l1_beta": rpn.smooth_l1_beta}
    positive = labels == 1
    box_loss = _dense_box_regression_loss(
        anchors, rpn.box2box_transform, pred_anchor_deltas, gt_boxes, positive, **regression
    )
    sampled = labels >= 0
    logits, targets = cat(pred_objectness_logits, dim=1)[sampled], labels[sampled].float()
    class_loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    count = rpn.batch_size_per_image * len(gt_labels)
    losses = {"loss_rpn_cls": class_loss / count, "loss_rpn_loc": box_loss / count}
    return {name: loss * rpn.loss_weight.get(name, 1.0) for name, loss in losses.items()}


@torch.no_grad()
def label_and_sample_proposals(
    heads: ROIHeads, proposals: list[Instances], targets: list[Instances]
) -> list[Instances]:
    """`ROIHeads.label_and_sample_proposals` without logging; its arguments and result."""
    if heads.proposal_append_gt:
        proposals = add_ground_truth_to_proposals(targets, proposals)
    sampled = []
    for boxes, target in zip(proposals, targets, strict=False):
        overlaps = pairwise_iou(target.gt_boxes, boxes.proposal_boxes)
        matches, labels = heads.proposal_matcher(overlaps)
        rows, classes = heads._sample_proposals(matches, labels, target.gt_classes)
        chosen = boxes[rows]
        chosen.gt_classes = classes
        if len(target):
            for name, value in target.get_fields().items():
                if name.startswith("gt_") and not chosen.has(name):
                    chosen.set(name, value[matches[rows]])
        sampled.append(chosen)
    return sampled


@torch.no_grad()
def match_and_label_boxes(
    heads: CascadeROIHeads, proposals: list[Instances], stage: int, targets: list[Instances]
) -> list[Instances]:
    """`CascadeROIHeads._match_and_label_boxes` without logging; its arguments and result."""
    for boxes, target in zip(proposals, targets, strict=False):
        matches, labels = heads.proposal_matchers[stage](pairwise_iou(target.gt_boxes, boxes.proposal_boxes))
        if len(target):
            classes = target.gt_classes[matches]
            classes[labels == 0] = heads.num_classes
            gt_boxes = target.gt_boxes[matches]
        else:
            classes = torch.full_like(matches, heads.num_classes)
            gt_boxes = Boxes(target.gt_boxes.tensor.new_zeros((len(boxes), 4)))
        boxes.gt_classes, boxes.gt_boxes = classes, gt_boxes
    return proposals


def skip_classification_stats(pred_logits: torch.Tensor, gt_classes: torch.Tensor, prefix: str = "fast_rcnn") -> None:
    """Nothing, in the place of `_log_classification_stats`."""


def compute_mask_loss(pred_mask_logits: torch.Tensor, instances: list[Instances], vis_period: int = 0) -> torch.Tensor:
    """`mask_rcnn_loss` without logging, unless it draws images at this step; its arguments and loss."""
    if vis_period > 0 and get_event_storage().iter % vis_period == 0:
        loss: torch.Tensor = _compute_logged_mask_loss(pred_mask_logits, instances, vis_period)
        return loss
    nonempty, side = [each for each in instances if len(each)], pred_mask_logits.shape[-1]
    if not nonempty:
        return pred_mask_logits.sum() * 0
    masks = [each.gt_masks.crop_and_resize(each.proposal_boxes.tensor, side) for each in nonempty]
    targets = cat([mask.to(pred_mask_logits.device) for mask in masks], dim=0).float()
    if pred_mask_logits.shape[1] == 1:
        logits = pred_mask_logits[:, 0]
    else:
        rows = torch.arange(len(pred_mask_logits), device=pred_mask_logits.device)
        logits = pred_mask_logits[rows, cat([each.gt_classes.long() for each in nonempty], dim=0)]
    return F.binary_cross_entropy_with_logits(logits, targets)


# (owner, name) -> the first digits of the SHA-256 of the source that the other function is equal to, that function.
QUIET: dict[tuple[Any, str], tuple[str, Callable[..., Any]]] = {
    (RPN, "losses"): ("7cd20156a62e60c8", compute_rpn_losses),
    (ROIHeads, "label_and_sample_proposals"): ("635a8065b252a7a2", label_and_sample_proposals),
    (CascadeROIHeads, "_match_and_label_boxes"): ("40e49c571f1e5a5c", match_and_label_boxes),
    (fast_rcnn, "_log_classification_stats"): ("296a7208ced59662", skip_classification_stats),
    (mask_head, "mask_rcnn_loss"): ("37a732140756ef0c", compute_mask_loss),
}


@cache
def _find_known() -> Sequence[tuple[Any, str]]:
    """The functions that may be replaced in this version of Detectron2."""
    known = [key for key, (digest, _) in QUIET.items() if _compute_digest(getattr(*key, None)) == digest]
    if unknown := [f"{owner.__name__}.{name}" for owner, name in QUIET if (owner, name) not in known]:
        text = "Detectron2's %s is not the known one: it reads its numbers for the log at each step"
        logger.info(text, ", ".join(unknown))
    return known


def _compute_digest(function: Any) -> str:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):  # a package without sources
        return ""
