"""Swin with windows by whole numbers: equal to Detectron2's network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import SwinTransformer

from segkit.modeling.backbones.swin import SEPARATE, SwinBackbone, build_shift_mask

OPTIONS: dict[str, Any] = {"embed_dim": 12, "depths": [2, 2, 2, 1], "num_heads": [1, 2, 2, 4]}


@torch.no_grad()
@pytest.mark.parametrize("window_size", [4, 7])
def test_levels_equal_those_of_detectron2(window_size: int) -> None:
    torch.manual_seed(0)
    theirs = SwinTransformer(**OPTIONS, window_size=window_size).eval()
    for weight in theirs.parameters():
        weight.add_(torch.randn_like(weight) * 0.1)  # positions matter
    ours = SwinBackbone(**OPTIONS, window_size=window_size).eval()
    ours.load_state_dict(theirs.state_dict())
    for size_hw in ((64, 96), (70, 45)):
        images = torch.randn(2, 3, *size_hw)
        for own, expected in zip(ours(images).values(), theirs(images).values(), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_shifted_windows_keep_opposite_sides_apart() -> None:
    # A column of four pixels in windows of 2, shifted by 1: parts 0 0 | 1 2, and in the row of two pixels 1 2.
    mask = build_shift_mask((4, 2), side=2, shift=1, device=torch.device("cpu"))
    # First window: parts 1, 2 in both rows. Second one: 4, 5, then 7, 8.
    near, far = 0.0, SEPARATE
    first = [[near, far, near, far], [far, near, far, near]] * 2
    second = [[near if row == column else far for column in range(4)] for row in range(4)]
    assert mask.tolist() == [first, second]
