"""The inference of Mask2Former as its repository does it: slowly, one query at a time (maskformer_model.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

Predictions = tuple[torch.Tensor, torch.Tensor]


def resize_masks(
    mask_logits: torch.Tensor, stride: int, image_size: tuple[int, int], size_hw: tuple[int, int]
) -> torch.Tensor:
    """(Q, H, W): to the padded image, without its padding, to the output, as sem_seg_postprocess does."""
    padded_hw = [length * stride for length in mask_logits.shape[1:]]
    padded = F.interpolate(mask_logits[None], size=padded_hw, mode="bilinear", align_corners=False)
    cropped = padded[:, :, : image_size[0], : image_size[1]]
    return F.interpolate(cropped, size=size_hw, mode="bilinear", align_corners=False)[0]


def is_unambiguous(class_logits: torch.Tensor, masks: torch.Tensor) -> bool:
    """Whether no comparison is within rounding, so that two versions of the rules must agree; masks: `resize_masks`."""
    scores, _ = class_logits.softmax(1).max(1)
    values = (scores[:, None, None] * masks.sigmoid()).sort(0).values
    return bool(masks.abs().min() > 1e-4 and (len(values) < 2 or (values[1:] - values[:-1]).abs().min() > 1e-5))


def fuse_panoptic(
    class_logits: torch.Tensor,
    masks: torch.Tensor,
    is_thing: list[bool],
    object_threshold: float,
    overlap_threshold: float,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """`panoptic_inference` of full-size mask logits; segments_info has the query of a thing and its score too."""
    scores, labels = F.softmax(class_logits, dim=-1).max(-1)
    probs = masks.sigmoid()
    keep = labels.ne(class_logits.shape[1] - 1) & (scores > object_threshold)
    rows = keep.nonzero()[:, 0].tolist()
    panoptic_seg = torch.zeros(masks.shape[-2:], dtype=torch.int32)
    infos: list[dict[str, Any]] = []
    if not rows:
        return panoptic_seg.numpy(), infos
    # Of equal values the first of stuff by score, then of things by score, where the reference takes the first query.
    rows.sort(key=lambda row: (is_thing[labels[row]], -scores[row].item(), row))
    owners = (scores[rows, None, None] * probs[rows]).argmax(0)
    stuff_ids: dict[int, int] = {}
    for k, row in enumerate(rows):
        label = int(labels[row])
        mask_area, original_area = int((owners == k).sum()), int((probs[row] >= 0.5).sum())
        mask = (owners == k) & (probs[row] >= 0.5)
        if not (mask_area > 0 and original_area > 0 and mask.sum() > 0):
            continue
        if mask_area / original_area < overlap_threshold:
            continue
        if not is_thing[label]:
            if label in stuff_ids:
                panoptic_seg[mask] = stuff_ids[label]
                continue
            stuff_ids[label] = len(infos) + 1
        panoptic_seg[mask] = len(infos) + 1
        infos.append({"id": len(infos) + 1, "label": label, "isthing": is_thing[label], "score": float(scores[row])})
    return panoptic_seg.numpy(), infos


def find_instances(
    class_logits: torch.Tensor, masks: torch.Tensor, is_thing: list[bool], most: int
) -> list[tuple[int, float, np.ndarray]]:
    """`instance_inference`: class, score and mask of each instance."""
    classes = class_logits.shape[1] - 1
    scores, indices = F.softmax(class_logits, dim=-1)[:, :-1].flatten().topk(most, sorted=False)
    instances = []
    for score, index in zip(scores.tolist(), indices.tolist(), strict=True):
        query, label = divmod(index, classes)
        if is_thing[label]:
            mask = masks[query] > 0
            quality = (masks[query].sigmoid() * mask).sum() / (mask.sum() + 1e-6)
            instances.append((label, score * float(quality), mask.numpy()))
    return instances


def compute_semantic(class_logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """`semantic_inference`: (K, H, W)."""
    return torch.einsum("qc,qhw->chw", F.softmax(class_logits, dim=-1)[..., :-1], masks.sigmoid())
