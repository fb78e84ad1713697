"""Masks of boxes onto whole images with tensor operations, a few rows at a time; and as box crops on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from segkit.fusion.paste import MASK_THRESHOLD, paste_masks
from segkit.modeling.postprocessing.detections import Detections
from segkit.structures import InstanceMasks

ROWS_PER_STEP = 4  # masks pasted at once, 13 bytes a pixel each
OUTSIDE = 3.0  # a grid_sample coordinate whose neighbours are all padding: the mask ends half a cell beyond 1


def paste_crops(
    mask_probs: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    scores: torch.Tensor,
    class_ids: torch.Tensor,
    size_hw: tuple[int, int],
    threshold: float = MASK_THRESHOLD,
) -> InstanceMasks:
    """Run `segkit.fusion.paste.paste_masks` on tensors. Each is copied to the CPU once.

    Args:
        mask_probs: (N, m, m') float in [0, 1].
        boxes_xyxy: (N, 4) float, pixels of the output image.
        scores: (N,) float.
        class_ids: (N,) integers.
        size_hw: (height, width) of the output image.
        threshold: Pixels with at least this probability belong to a mask.

    Returns:
        The instances with their crops. N may be 0.
    """
    probs, boxes, floats = (tensor.detach().float().cpu().numpy() for tensor in (mask_probs, boxes_xyxy, scores))
    return paste_masks(probs, boxes, floats, class_ids.detach().long().cpu().numpy(), size_hw, threshold)


def paste_each(
    detections: Detections, size_hw: tuple[int, int], threshold: float = MASK_THRESHOLD
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Paste masks onto whole images, a few rows at a time.

    Args:
        detections: The masks and their boxes in pixels of the images.
        size_hw: (height, width) of the images.
        threshold: Pixels with at least this probability belong to a mask.

    Yields:
        Each row; its probabilities, (B, H, W) float32; its mask, (B, H, W) bool; the pixels of the mask, (B,) int64.
    """
    xs, ys = compute_sampling_axes(detections.boxes_xyxy, size_hw)
    total = xs.shape[1]
    for start in range(0, total, ROWS_PER_STEP):
        rows = slice(start, min(start + ROWS_PER_STEP, total))
        probs = paste_probs(detections.mask_probs[:, rows], xs[:, rows], ys[:, rows])
        masks = probs >= threshold
        areas_px = masks.sum((2, 3))
        for step, row in enumerate(range(rows.start, rows.stop)):
            yield row, probs[:, step], masks[:, step], areas_px[:, step]


def compute_sampling_axes(boxes_xyxy: torch.Tensor, size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute where each pixel of an image samples the masks, for `paste_probs`.

    Args:
        boxes_xyxy: (B, N, 4), pixels of the images.
        size_hw: (height, width) of the images.

    Returns:
        (B, N, W) and (B, N, H) float32.
    """
    x0, y0, x1, y1 = boxes_xyxy.float().unbind(2)
    return _compute_sampling_axis(x0, x1, size_hw[1]), _compute_sampling_axis(y0, y1, size_hw[0])


def paste_probs(mask_probs: torch.Tensor, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """Spread masks over their boxes with F.grid_sample(align_corners=False), as `paste_masks_in_image` does.

    Args:
        mask_probs: (B, k, m, m') float.
        xs: (B, k, W), of `compute_sampling_axes`.
        ys: (B, k, H), of `compute_sampling_axes`.

    Returns:
        (B, k, H, W) float32 probabilities, 0 outside the boxes.
    """
    batch, count, height, width = *ys.shape, xs.shape[2]
    shape = (batch, count, height, width)
    grid = torch.stack([xs[:, :, None, :].expand(shape), ys[:, :, :, None].expand(shape)], dim=4).flatten(0, 1)
    masks = mask_probs.float().flatten(0, 1)[:, None]
    return F.grid_sample(masks, grid, align_corners=False).reshape(shape)


def _compute_sampling_axis(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    """(B, N, length) float32: the grid_sample coordinate of each pixel; -1 and 1 are the box's edges, (B, N) float32.

    `OUTSIDE` for every pixel of a box whose edges are equal, and for pixels outside the window that
    `paste_masks_in_image` (detectron2/layers/mask_ops.py) fills on the CPU, which is a pixel wider than the box.
    """
    low, high = low[..., None], high[..., None]
    pixels = torch.arange(length, dtype=torch.float32, device=low.device)
    positions = (pixels + 0.5 - low) / (high - low) * 2 - 1
    inside = (pixels >= low.floor() - 1) & (pixels < high.ceil() + 1) & (low != high)
    return torch.where(inside, positions, OUTSIDE)
