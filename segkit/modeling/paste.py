"""Mask head outputs -> box crops: pasting that touches only the pixels of each box."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from segkit.structures import InstanceMasks

MASK_THRESHOLD = 0.5  # He et al. 2017, Mask R-CNN, section 3.1


def paste_crops(
    mask_probs: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    scores: torch.Tensor,
    class_ids: torch.Tensor,
    size_hw: tuple[int, int],
    threshold: float = MASK_THRESHOLD,
) -> InstanceMasks:
    """Resample each mask onto the pixels of its box.

    mask_probs: (N, M, M) float in [0, 1]. boxes_xyxy: (N, 4) float, pixels of the output image of size_hw.
    The crops hold the same pixels as detectron2/layers/mask_ops.py `paste_masks_in_image`, which computes each mask in
    the same window on the CPU. N may be 0. Everything travels to the CPU in one copy per tensor.
    """
    masks, boxes = mask_probs.detach().float().cpu(), boxes_xyxy.detach().float().cpu()
    height, width = size_hw
    lows = (boxes[:, :2].floor() - 1).clamp(min=0).int()
    highs = torch.minimum(boxes[:, 2:].ceil() + 1, boxes.new_tensor([width, height])).int()
    highs = torch.maximum(highs, lows)
    crops = [
        _paste_one(mask, box, low, high).ge_(threshold).bool().numpy()
        for mask, box, low, high in zip(masks, boxes, lows.tolist(), highs.tolist(), strict=True)
    ]
    return InstanceMasks(
        (height, width),
        boxes.numpy(),
        scores.detach().float().cpu().numpy(),
        class_ids.detach().long().cpu().numpy(),
        lows.numpy().astype(np.int64),
        tuple(crops),
    )


def _paste_one(mask: torch.Tensor, box: torch.Tensor, low: list[int], high: list[int]) -> torch.Tensor:
    x0, y0, x1, y1 = box
    xs = (torch.arange(low[0], high[0], dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
    ys = (torch.arange(low[1], high[1], dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack([xs[None, :].expand(len(ys), -1), ys[:, None].expand(-1, len(xs))], dim=2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
