"""Masks at random points, for losses on points (Kirillov et al. 2020, PointRend, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample


def sample_logits(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate maps at points, bilinearly, as `F.grid_sample(align_corners=False)` does; 0 beyond the border.

    Args:
        logits: (N, C, h, w) float.
        points: (N, P, 2) float in [0, 1], (x, y) as shares of the width and height.

    Returns:
        (N, C, P).
    """
    values: torch.Tensor = point_sample(logits, points, align_corners=False)
    return values


@torch.no_grad()
def draw_uncertain_points(logits: torch.Tensor, count: int, oversample: float, importance: float) -> torch.Tensor:
    """Draw the points of a mask loss: the most uncertain ones of random candidates, and other random ones.

    Args:
        logits: (N, 1, h, w) float, one mask per row; those nearest to 0 are the most uncertain.
        count: P, the number of points.
        oversample: candidates per point, at least 1.
        importance: share of the points, in [0, 1], that are the most uncertain candidates.

    Returns:
        (N, P, 2) float in [0, 1], see `sample_logits`.
    """
    points: torch.Tensor = get_uncertain_point_coords_with_randomness(
        logits, lambda values: -values.abs(), count, oversample, importance
    )
    return points


class SampledMasks:
    """Binary masks that are interpolated at points as `sample_logits` does, without a float copy of them.

    A byte holds the four pixels around a corner of the pixel grid as bits: a quarter of the memory of floats, and one
    place to read for each point, which `F.grid_sample` reads at four. Pixels beyond the border are 0.

    Args:
        masks: (n, H, W) bool or uint8 of each image, all of one size, at least one image.
    """

    def __init__(self, masks: Sequence[torch.Tensor]) -> None:
        self.height, self.width = masks[0].shape[1:]
        total = sum(len(image) for image in masks)
        corners = torch.zeros((total, self.height + 1, self.width + 1), dtype=torch.uint8, device=masks[0].device)
        pixels = torch.cat([*masks]).to(torch.uint8)
        corners[:, 1:, 1:] += pixels
        corners[:, 1:, :-1] += pixels << 1
        corners[:, :-1, 1:] += pixels << 2
        corners[:, :-1, :-1] += pixels << 3
        self._corners = corners.view(-1)
        self._count, self._corners_per_mask = total, (self.height + 1) * (self.width + 1)

    def __len__(self) -> int:
        return self._count

    def sample(self, points: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Interpolate masks at points.

        Args:
            points: (R, P, 2) float32 in [0, 1], see `sample_logits`.
            rows: (R,) int64, the mask of each row of points, counted over all images; None: R masks, all of them.

        Returns:
            (R, P) float32 in [0, 1].
        """
        rows = torch.arange(len(self), device=points.device) if rows is None else rows
        x, y = (points[..., 0] * self.width + 0.5), (points[..., 1] * self.height + 0.5)
        left, top = x.floor(), y.floor()  # the first pixel, counted from 1: the corner with the same number
        x, y = x - left, y - top
        corners = rows[:, None] * self._corners_per_mask + top.long() * (self.width + 1) + left.long()
        pixels = self._corners.index_select(0, corners.flatten()).view(corners.shape)
        upper = torch.lerp((pixels & 1).float(), (pixels >> 1 & 1).float(), x)
        lower = torch.lerp((pixels >> 2 & 1).float(), (pixels >> 3).float(), x)
        return torch.lerp(upper, lower, y)
