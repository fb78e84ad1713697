"""Mask head outputs as tensors -> box crops."""

from __future__ import annotations

import torch

from segkit.fusion.paste import MASK_THRESHOLD, paste
from segkit.structures import InstanceMasks


def paste_crops(
    mask_probs: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    scores: torch.Tensor,
    class_ids: torch.Tensor,
    size_hw: tuple[int, int],
    threshold: float = MASK_THRESHOLD,
) -> InstanceMasks:
    """`segkit.fusion.paste.paste` of tensors, which travel to the CPU in one copy each.

    mask_probs: (N, m, m') float in [0, 1]. boxes_xyxy: (N, 4) float, pixels of the output image of size_hw. scores:
    (N,) float. class_ids: (N,) integers. N may be 0.
    """
    probs, boxes, found = (tensor.detach().float().cpu().numpy() for tensor in (mask_probs, boxes_xyxy, scores))
    return paste(probs, boxes, found, class_ids.detach().long().cpu().numpy(), size_hw, threshold)
