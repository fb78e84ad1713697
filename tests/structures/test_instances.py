"""Instances as crops, ids as colours, masks as RLE."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segkit.structures import InstanceMasks, ids_to_rgb, mask_to_rle, rgb_to_ids, rle_to_mask, segmentation_to_rle
from segkit.utils.errors import DatasetError


def build_instances(masks: np.ndarray) -> InstanceMasks:
    count = len(masks)
    return InstanceMasks.from_full(
        masks, np.zeros((count, 4), np.float32), np.ones(count, np.float32), np.arange(count)
    )


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)))
def test_crops_hold_the_pixels_of_the_masks(masks: np.ndarray) -> None:
    instances = build_instances(masks)
    assert np.array_equal(instances.to_full(), masks)
    for rle, mask in zip(instances.to_rle(), masks, strict=True):
        assert rle["counts"].encode() == coco_mask.encode(np.asfortranarray(mask))["counts"]
        assert np.array_equal(rle_to_mask(rle), mask)


def test_without_instances_there_is_no_mask() -> None:
    instances = build_instances(np.zeros((0, 3, 4), dtype=bool))
    assert len(instances) == 0
    assert instances.to_full().shape == (0, 3, 4)
    assert instances.to_rle() == []


def test_an_empty_mask_is_an_empty_crop() -> None:
    assert build_instances(np.zeros((1, 3, 4), dtype=bool)).crops[0].shape == (0, 0)


def test_crops_outside_the_image_and_unequal_lengths_are_rejected() -> None:
    common = {
        "size_hw": (3, 4),
        "boxes_xyxy": np.zeros((1, 4), np.float32),
        "scores": np.ones(1, np.float32),
        "class_ids": np.zeros(1, np.int64),
    }
    with pytest.raises(ValueError, match="leaves the 3 x 4 image"):
        InstanceMasks(**common, corners_xy=np.array([[3, 0]]), crops=(np.ones((2, 2), bool),))
    with pytest.raises(ValueError, match="same length"):
        InstanceMasks(**common, corners_xy=np.zeros((0, 2), np.int64), crops=())


@given(hnp.arrays(np.int32, (3, 5), elements=st.integers(0, 256**3 - 1)))
def test_ids_survive_a_round_trip_through_colours(segment_ids: np.ndarray) -> None:
    rgb = ids_to_rgb(segment_ids)
    assert rgb.shape == (3, 5, 3)
    assert rgb_to_ids(rgb).tolist() == segment_ids.tolist()
    assert rgb_to_ids(rgb).dtype == np.int32


def test_an_id_is_red_plus_256_green_plus_65536_blue() -> None:
    assert ids_to_rgb(np.array([[1 + 2 * 256 + 3 * 65536]])).tolist() == [[[1, 2, 3]]]
    assert rgb_to_ids(np.array([[[1, 2, 3, 255]]], dtype=np.uint8)).tolist() == [[1 + 2 * 256 + 3 * 65536]]


@pytest.mark.parametrize("bad", [-1, 256**3])
def test_ids_beyond_three_bytes_are_rejected(bad: int) -> None:
    with pytest.raises(ValueError, match=str(bad)):
        ids_to_rgb(np.array([[bad]]))


def test_every_coco_segmentation_becomes_rle() -> None:
    """A square of pixels 1..2: as polygon, as uncompressed and as compressed RLE (columns first)."""
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    polygon = [[1, 1, 3, 1, 3, 3, 1, 3]]
    uncompressed = {"size": [4, 4], "counts": [5, 2, 2, 2, 5]}
    for segmentation in (polygon, uncompressed, mask_to_rle(mask)):
        assert np.array_equal(rle_to_mask(segmentation_to_rle(segmentation, (4, 4))), mask)
    with pytest.raises(ValueError, match="polygons or RLE"):
        segmentation_to_rle(7, (4, 4))


def test_errors_are_one_line_and_survive_pickling() -> None:
    error = DatasetError("expected a, got b", where="x.json", remedy="do c")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "x.json: expected a, got b; do c"
