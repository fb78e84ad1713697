"""Samples on the way from the workers are small, and arrive as they were."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from hypothesis import given
from hypothesis import strategies as st

from segkit.data.map_masks import MapMasks
from segkit.engine.training.packing import PackedMasks, pack_sample, unpack_bits, unpack_sample


def draw_masks(objects: int, height: int, width: int) -> BitMasks:
    generator = torch.Generator().manual_seed(objects)
    return BitMasks(torch.rand(objects, height, width, generator=generator) > 0.5)


@given(st.integers(0, 4), st.integers(1, 9), st.integers(1, 20))
def test_masks_come_back(objects: int, height: int, width: int) -> None:
    masks = draw_masks(objects, height, width)
    packed = PackedMasks.pack(masks)
    assert len(packed) == objects
    assert packed.bits.shape == (objects, -(-height * width // 8))
    assert torch.equal(packed.unpack().tensor, masks.tensor)
    assert torch.equal(unpack_bits(packed.bits, height * width), masks.tensor.flatten(1))  # as on a GPU


def test_a_sample_of_an_eighth_of_its_size_comes_back() -> None:
    instances = Instances((64, 80), gt_classes=torch.arange(9), gt_masks=draw_masks(9, 64, 80))
    sample = {"image_id": 3, "instances": instances, "sem_seg": torch.full((64, 80), 255)}
    packed = pack_sample(sample)
    # 9 masks of 5120 bits and 5120 bytes, in the place of 9 x 5120 bytes and 5120 x 8 bytes.
    assert packed["instances"].gt_masks.bits.numel() + packed["sem_seg"].nbytes == 9 * 640 + 5120
    unpacked = unpack_sample(pickle.loads(pickle.dumps(packed)))
    assert unpacked.keys() == sample.keys()
    assert unpacked["sem_seg"].dtype == torch.int64
    assert torch.equal(unpacked["sem_seg"], sample["sem_seg"])
    masks = unpacked["instances"].gt_masks
    assert type(masks) is BitMasks
    assert torch.equal(masks.tensor, instances.gt_masks.tensor)
    assert unpacked["instances"].gt_classes.tolist() == [*range(9)]
    assert type(sample["instances"].gt_masks) is BitMasks


@pytest.mark.parametrize(
    "masks",
    [
        MapMasks(torch.zeros(2, 3, dtype=torch.uint8), torch.ones(1, dtype=torch.uint8)),
        PolygonMasks([[np.array([0.0, 0, 2, 0, 2, 2])]]),
    ],
)
def test_small_masks_stay(masks: MapMasks | PolygonMasks) -> None:
    sample = {"instances": Instances((2, 3), gt_masks=masks)}
    assert pack_sample(sample)["instances"].gt_masks is masks
    assert pack_sample({"image_id": 1}) == unpack_sample({"image_id": 1}) == {"image_id": 1}
