"""Masks of boxes onto whole images, some rows at a time: tensors in, tensors out, nothing read back."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from segkit.fusion.paste import MASK_THRESHOLD, paste_masks
from segkit.structures import InstanceMasks

ROWS_PER_STEP = 4  # masks pasted at once: 13 bytes a pixel each
OUTSIDE = 3.0  # a grid_sample coordinate whose four neighbours are all padding: the mask ends at 1, half a cell beyond


def sampling_axes(boxes_xyxy: torch.Tensor, size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each pixel's column and row lie in each box, as grid_sample counts: -1 and 1 are the box's edges.

    boxes_xyxy: (B, N, 4) float, pixels. Returns xs (B, N, W) and ys (B, N, H) float32; a pixel outside the window that
    `paste_masks_in_image` (detectron2/layers/mask_ops.py) fills on the CPU, a pixel wider than the box, is `OUTSIDE`;
    so is every pixel of a box without width or height.
    """
    x0, y0, x1, y1 = boxes_xyxy.float().unbind(2)
    return _axis(x0, x1, size_hw[1]), _axis(y0, y1, size_hw[0])


def paste_probs(mask_probs: torch.Tensor, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """(B, k, H, W) float32: each mask spread over its box, bilinear, 0 outside.

    mask_probs: (B, k, m, m'). xs, ys: of `sampling_axes`, the same k rows. The values are those of
    `paste_masks_in_image` bit by bit, since the operation is the same: F.grid_sample, align_corners=False.
    """
    batch, count, height, width = *ys.shape, xs.shape[2]
    shape = (batch, count, height, width)
    grid = torch.stack([xs[:, :, None, :].expand(shape), ys[:, :, :, None].expand(shape)], dim=4).flatten(0, 1)
    masks = mask_probs.float().flatten(0, 1)[:, None]
    return F.grid_sample(masks, grid, align_corners=False).reshape(shape)


def _axis(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    low, high = low[..., None], high[..., None]
    pixels = torch.arange(length, dtype=torch.float32, device=low.device)
    places = (pixels + 0.5 - low) / (high - low) * 2 - 1
    inside = (pixels >= low.floor() - 1) & (pixels < high.ceil() + 1) & (low != high)
    return torch.where(inside, places, OUTSIDE)


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
    return paste_masks(probs, boxes, found, class_ids.detach().long().cpu().numpy(), size_hw, threshold)
