"""Multi-scale deformable attention against a slow version that reads each point by itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from segkit.modeling.queries.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_by_grid,
    sample_by_rows,
)

SIZES = [(2, 3), (5, 1), (4, 6)]
PIXELS = 6 + 5 + 24


def read_pixel(level: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear between the middles of pixels, which are whole numbers; 0 outside."""
    left, top = math.floor(x), math.floor(y)
    value = torch.zeros(level.shape[-1], dtype=level.dtype)
    for column, row in itertools.product((left, left + 1), (top, top + 1)):
        if 0 <= column < level.shape[1] and 0 <= row < level.shape[0]:
            value += (1 - abs(x - column)) * (1 - abs(y - row)) * level[row, column]
    return value


def sample_slowly(values: torch.Tensor, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    images, queries, heads, levels, count, _ = points.shape
    result = torch.zeros(images, queries, heads, values.shape[-1], dtype=values.dtype)
    starts = [0, *itertools.accumulate(height * width for height, width in SIZES)]
    for image, query, head, level, k in itertools.product(*map(range, (images, queries, heads, levels, count))):
        pixels = values[image, starts[level] : starts[level + 1], head].view(*SIZES[level], -1)
        x, y = points[image, query, head, level, k].tolist()
        result[image, query, head] += weights[image, query, head, level, k] * read_pixel(pixels, x, y)
    return result.flatten(2)


@pytest.mark.parametrize("sample", [sample_by_grid, sample_by_rows])
def test_samples_are_those_of_the_slow_version(sample: object) -> None:
    """Points lie inside, on the edges and up to two pixels outside."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, PIXELS, 3, 4, dtype=torch.float64, generator=generator)
    points = torch.rand(2, 5, 3, 3, 2, 2, dtype=torch.float64, generator=generator)
    points = points * (torch.tensor(SIZES).flip(1)[:, None] + 3) - 2
    points[:, 0] = points[:, 0].round()
    weights = torch.randn(2, 5, 3, 3, 2, dtype=torch.float64, generator=generator)
    got = sample(values, points, weights, SIZES)  # type: ignore[operator]
    torch.testing.assert_close(got, sample_slowly(values, points, weights))


def test_gradients_reach_values_points_and_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, PIXELS, 2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    points = torch.rand(1, 2, 2, 3, 1, 2, dtype=torch.float64, generator=generator) + 0.3
    weights = torch.rand(1, 2, 2, 3, 1, dtype=torch.float64, generator=generator, requires_grad=True)
    inputs = (values, points.requires_grad_(), weights)
    assert torch.autograd.gradcheck(lambda *args: sample_by_grid(*args, SIZES), inputs)


def test_heads_start_by_looking_in_eight_directions() -> None:
    """At first the offsets do not depend on the pixel: head 0 looks right by 1 to 4 pixels, head 2 down."""
    attention = MultiScaleDeformableAttention(16, levels=3, heads=8, points=4)
    offsets = attention.sampling_offsets(torch.randn(1, 16)).view(8, 3, 4, 2)
    steps = torch.arange(1.0, 5.0)
    zeros = torch.zeros(4)
    torch.testing.assert_close(offsets[0, 1], torch.stack([steps, zeros], dim=1))
    torch.testing.assert_close(offsets[2, 2], torch.stack([zeros, steps], dim=1))
    torch.testing.assert_close(offsets[1, 0], torch.stack([steps, steps], dim=1))


def test_attention_is_equal_with_and_without_gradients() -> None:
    """Without gradients the CPU reads rows, with them it samples grids."""
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(16, levels=3, heads=2, points=4)
    torch.nn.init.normal_(attention.sampling_offsets.weight)
    torch.nn.init.normal_(attention.attention_weights.weight)
    source, positions = torch.randn(2, PIXELS, 16), torch.rand(PIXELS, 2)
    expected = attention(source, positions, source, SIZES)
    with torch.no_grad():
        got = attention(source, positions, source, SIZES)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not got.requires_grad
    assert expected.requires_grad
