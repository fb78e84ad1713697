"""Random points that two implementations draw alike, although one draws for all images at once."""

from __future__ import annotations

from collections.abc import Callable

import torch


class SamePoints:
    """Stands for `torch.rand(rows, points, 2)`: the rows of one number of points are drawn from one sequence.

    Attributes:
        taken: number of points -> rows that were drawn.
    """

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}

    def start_again(self) -> None:
        """Draw the same points again."""
        self.taken.clear()

    def __call__(self, *shape: int, device: torch.device | str | None = None) -> torch.Tensor:
        rows, points, _ = shape
        start = self.taken.get(points, 0)
        self.taken[points] = start + rows
        parts = [torch.empty(points, 2) for _ in range(rows)]
        for row, part in enumerate(parts, start):
            part.uniform_(generator=torch.Generator().manual_seed(1000 * points + row))
        return (torch.stack(parts) if parts else torch.empty(0, points, 2)).to(device)


def draw_same_points(set_attribute: Callable[[object, str, object], None]) -> SamePoints:
    """Replace torch.rand.

    Args:
        set_attribute: as `monkeypatch.setattr`, or `setattr`.

    Returns:
        What replaces it.
    """
    points = SamePoints()
    set_attribute(torch, "rand", points)
    return points
