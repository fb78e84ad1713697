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

    A byte a pixel, in the place of the 4 that `F.grid_sample` needs. A border of zeros takes the place of its padding.

    Args:
        masks: (n, H, W) bool or uint8 of each image, all of one size, at least one image.
    """

    def __init__(self, masks: Sequence[torch.Tensor]) -> None:
        self.height, self.width = masks[0].shape[1:]
        total = sum(len(image) for image in masks)
        padded = torch.zeros((total, self.height + 2, self.width + 2), dtype=torch.uint8, device=masks[0].device)
        padded[:, 1:-1, 1:-1] = torch.cat([*masks])
        self._flat = padded.flatten(1)

    def __len__(self) -> int:
        return len(self._flat)

    def sample(self, points: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Interpolate masks at points.

        Args:
            points: (R, P, 2) float32 in [0, 1], see `sample_logits`.
            rows: (R,) int64, the mask of each row of points, counted over all images; None: R masks, all of them.

        Returns:
            (R, P) float32 in [0, 1].
        """
        rows = torch.arange(len(self), device=points.device) if rows is None else rows
        x, y = (points[..., 0] * self.width + 0.5), (points[..., 1] * self.height + 0.5)  # 0: a center of the border
        left, top = x.floor(), y.floor()
        x, y = x - left, y - top
        stride = self.width + 2
        corner = rows[:, None] * self._flat.shape[1] + top.long() * stride + left.long()
        flat = self._flat.view(-1)
        upper = torch.lerp(flat[corner].float(), flat[corner + 1].float(), x)
        lower = torch.lerp(flat[corner + stride].float(), flat[corner + stride + 1].float(), x)
        return torch.lerp(upper, lower, y)
