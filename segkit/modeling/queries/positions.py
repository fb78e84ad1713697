"""Sine positions of the pixels of a feature map (DETR, Carion et al. 2020, appendix A.4)."""

from __future__ import annotations

import math

import torch

TEMPERATURE = 10000.0
EPSILON = 1e-6


def build_sine_positions(size_hw: tuple[int, int], channels: int, like: torch.Tensor) -> torch.Tensor:
    """Encode each pixel's row in the first half of the channels and its column in the second.

    Row i of H is the angle 2 pi (i + 1) / (H + 1e-6); channels 2k and 2k + 1 of a half of C channels are its sine and
    cosine, divided by 10000 ** (2k / C).

    Args:
        size_hw: height and width of the map in pixels.
        channels: of the result, a multiple of 4.
        like: a tensor of the device and dtype of the result; the angles are computed in float32 at least.

    Returns:
        (H, W, channels).
    """
    height, width = size_hw
    half = channels // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    exponents = torch.arange(0, half, 2, dtype=dtype, device=like.device) / half
    frequencies = TEMPERATURE**-exponents

    def encode(length: int) -> torch.Tensor:
        steps = torch.arange(1, length + 1, dtype=dtype, device=like.device)
        angles = steps[:, None] * (2 * math.pi / (length + EPSILON)) * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)

    rows, columns = encode(height), encode(width)
    rows = rows[:, None].expand(height, width, half)
    columns = columns[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).to(like.dtype)
