"""Multi-scale deformable attention (Deformable DETR, Zhu et al. 2021) in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

Sizes = Sequence[tuple[int, int]]


class MultiScaleDeformableAttention(nn.Module):
    """Each pixel of each level looks at a few points of every level, around its own position.

    Of a pixel z with the position p, the weights a and offsets d are linear in z (equation 3 of the paper):

        sum over heads m of W_m sum over levels l and points k of a_mlk(z) V_m x_l(p + d_mlk(z))

    Args:
        channels: of pixels and values.
        levels: number of feature maps.
        heads: their number, a divisor of the channels.
        points: of each head on each level.
    """

    def __init__(self, channels: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let each head look in one direction, at 1, 2, ... pixels, with equal weights."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
        directions /= directions.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        offsets = (directions[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: torch.Tensor, positions: torch.Tensor, source: torch.Tensor, sizes_hw: Sizes
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: (N, Q, C), which the offsets and weights are computed from.
            positions: (Q, 2) x and y of the queries, as shares of the image in [0, 1].
            source: (N, S, C) the pixels of all levels, one level after the other, row by row.
            sizes_hw: height and width of each level in pixels.

        Returns:
            (N, Q, C).
        """
        heads, levels, points = self.heads, self.levels, self.points
        values = self.value_proj(source).unflatten(2, (heads, -1))
        offsets = self.sampling_offsets(query).unflatten(2, (heads, levels, points, 2))
        weights = self.attention_weights(query).unflatten(2, (heads, levels * points)).softmax(dim=3)
        weights = weights.unflatten(3, (levels, points))
        x, y = positions.unbind(1)  # times numbers, not a tensor of them: torch.export would take them for constants
        levels_xy = [torch.stack([x * width, y * height], dim=1) for height, width in sizes_hw]
        # In pixels of each level, 0 in the middle of the first one: (N, Q, heads, levels, points, 2).
        points_xy = (torch.stack(levels_xy, dim=1) - 0.5)[:, None, :, None] + offsets
        is_plain = query.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        sample = sample_by_rows if is_plain else sample_by_grid
        return self.output_proj(sample(values, points_xy, weights, sizes_hw))


def sample_by_grid(
    values: torch.Tensor, points_xy: torch.Tensor, weights: torch.Tensor, sizes_hw: Sizes
) -> torch.Tensor:
    """Sum the values at points, between pixels bilinear, outside 0: by `grid_sample`, level by level.

    Args:
        values: (N, S, heads, C) of the pixels of all levels.
        points_xy: (N, Q, heads, levels, points, 2) in pixels of each level, 0 in the middle of the first one.
        weights: (N, Q, heads, levels, points).
        sizes_hw: height and width of each level.

    Returns:
        (N, Q, heads * C).
    """
    images, queries, heads, _, points, _ = points_xy.shape
    maps = values.permute(0, 2, 3, 1).flatten(0, 1)  # (N * heads, C, S)
    points_xy = points_xy.transpose(1, 2).flatten(0, 1)
    samples = []
    for level, (height, width) in enumerate(sizes_hw):
        start = sum(h * w for h, w in sizes_hw[:level])
        level_map = maps[:, :, start : start + height * width].unflatten(2, (height, width))
        axes = zip(points_xy[:, :, level].unbind(-1), (width, height), strict=True)
        grid = torch.stack([2 * (points / side) + (1 / side - 1) for points, side in axes], dim=-1)
        samples.append(F.grid_sample(level_map, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    # (N * heads, C, Q, levels * points)
    weights = weights.transpose(1, 2).reshape(images * heads, 1, queries, len(sizes_hw) * points)
    summed = (torch.cat(samples, dim=3) * weights).sum(dim=3)
    return summed.unflatten(0, (images, heads)).flatten(1, 2).transpose(1, 2)


def sample_by_rows(
    values: torch.Tensor, points_xy: torch.Tensor, weights: torch.Tensor, sizes_hw: Sizes
) -> torch.Tensor:
    """As `sample_by_grid`, of all levels at once: each head's channels of a pixel are a row, which is read as a whole.

    Args:
        values: as for `sample_by_grid`.
        points_xy: as for `sample_by_grid`.
        weights: as for `sample_by_grid`.
        sizes_hw: as for `sample_by_grid`.

    Returns:
        (N, Q, heads * C).
    """
    images, queries, heads = points_xy.shape[:3]
    pixels = values.shape[1]
    sizes = torch.tensor(sizes_hw)
    heights, widths = sizes[:, 0, None], sizes[:, 1, None]  # (levels, 1), against (..., levels, points)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(dim=1).cumsum(0)[:-1]])[:, None]
    corners_xy = points_xy.floor()
    (share_x, share_y), (left, top) = (points_xy - corners_xy).unbind(-1), corners_xy.long().unbind(-1)
    first = torch.arange(images)[:, None] * (pixels * heads) + torch.arange(heads)  # (N, heads)
    columns, rows = [], []
    for step, share_of_column, share_of_row in ((0, 1 - share_x, 1 - share_y), (1, share_x, share_y)):
        x, y = left + step, top + step
        columns.append((x.clamp(min=0).minimum(widths - 1), share_of_column * ((x >= 0) & (x < widths))))
        rows.append((y.clamp(min=0).minimum(heights - 1), share_of_row * ((y >= 0) & (y < heights))))
    indices = torch.stack([y * widths + x for y, _ in rows for x, _ in columns], dim=-1)
    factors = torch.stack([row * column * weights for _, row in rows for _, column in columns], dim=-1)
    indices = (indices + starts[..., None]) * heads + first.view(images, 1, heads, 1, 1, 1)
    count = images * queries * heads
    table = values.reshape(-1, values.shape[-1])
    summed = F.embedding_bag(indices.view(count, -1), table, mode="sum", per_sample_weights=factors.view(count, -1))
    return summed.view(images, queries, -1)
