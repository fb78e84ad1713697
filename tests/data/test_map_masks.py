"""Masks held as one map give what bitmasks give."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, Instances
from hypothesis import given
from hypothesis import strategies as st

from segkit.data.map_masks import MapMasks
from segkit.engine.training.replay import encode_sample

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
NUMBERS = torch.tensor([[0, 1, 1], [3, 3, 1]], dtype=torch.uint8)
COORDINATES = st.floats(-4, 14, width=32)


@st.composite
def masks_and_boxes(draw: st.DrawFn) -> tuple[MapMasks, torch.Tensor, int]:
    """Masks of which some are empty or repeated, with boxes that may be partly or wholly outside, or empty."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    pixels = draw(st.lists(st.integers(0, 4), min_size=height * width, max_size=height * width))
    numbers = torch.tensor(pixels, dtype=draw(st.sampled_from([torch.uint8, torch.int32]))).reshape(height, width)
    values = torch.tensor(draw(st.permutations(range(1, 6)))[: draw(st.integers(1, 5))], dtype=numbers.dtype)
    rows = torch.tensor(draw(st.lists(st.integers(0, len(values) - 1), max_size=7)), dtype=torch.int64)
    corners = torch.tensor([[draw(COORDINATES) for _ in range(4)] for _ in rows]).reshape(-1, 2, 2)
    return MapMasks(numbers, values)[rows], corners.sort(dim=1).values.reshape(-1, 4), draw(st.integers(1, 7))


@pytest.mark.parametrize("device", DEVICES)
@given(masks_and_boxes())
def test_targets_equal_those_of_bitmasks(device: str, drawn: tuple[MapMasks, torch.Tensor, int]) -> None:
    masks, boxes, size = drawn
    masks, boxes = masks.to(device), boxes.to(device)
    expected = BitMasks(masks.tensor).crop_and_resize(boxes, size)
    targets = masks.crop_and_resize(boxes, size)
    assert targets.dtype == torch.bool
    assert targets.device == boxes.device
    assert torch.equal(targets, expected)


def test_the_interface_is_that_of_bitmasks() -> None:
    masks = MapMasks(NUMBERS, torch.tensor([3, 1, 2], dtype=torch.uint8))
    bitmasks = BitMasks(torch.tensor([[[0, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]]))
    items: list[Any] = [1, slice(1, 3), torch.tensor([2, 0, 0]), torch.tensor([True, False, True]), [0, 1]]
    assert torch.equal(masks.tensor, bitmasks.tensor)
    assert masks.image_size == bitmasks.image_size
    assert len(masks) == len(bitmasks)
    assert all(torch.equal(a, b) for a, b in zip(masks, bitmasks, strict=True))
    assert torch.equal(masks.nonempty(), bitmasks.nonempty())
    assert torch.equal(masks.get_bounding_boxes().tensor, bitmasks.get_bounding_boxes().tensor)
    for item in items:
        assert torch.equal(masks[item].tensor, bitmasks[item].tensor)
    joined = Instances.cat([Instances((2, 3), gt_masks=masks), Instances((2, 3), gt_masks=masks[0])])
    assert torch.equal(joined.gt_masks.tensor, BitMasks.cat([bitmasks, bitmasks[0]]).tensor)


def test_they_travel_as_one_map() -> None:
    masks = MapMasks(torch.zeros(50, 60, dtype=torch.uint8), torch.arange(1, 41, dtype=torch.uint8))
    copied = pickle.loads(pickle.dumps(masks))
    assert torch.equal(copied.tensor, masks.tensor)
    assert len(pickle.dumps(masks)) < 2 * 50 * 60  # 40 bitmasks are 40 * 50 * 60 bytes
    assert encode_sample(masks)["type"] == "BitMasks"
