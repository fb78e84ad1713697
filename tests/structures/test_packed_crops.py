from __future__ import annotations

import numpy as np

from segkit.structures import InstanceMasks
from segkit.structures.packed_crops import PackedCrop, PackedCrops

CROPS = [np.array([[1, 0, 1, 1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0, 1, 0]], dtype=bool), np.ones((1, 1), dtype=bool)]


def test_crops_are_unpacked_by_number_slice_and_loop() -> None:
    packed = PackedCrops([*map(PackedCrop.pack, CROPS)])
    assert len(packed) == 2
    for crop, expected in zip(packed, CROPS, strict=True):
        np.testing.assert_array_equal(crop, expected)
    np.testing.assert_array_equal(packed[-1], CROPS[1])
    assert [*map(np.shape, packed[:1])] == [(2, 9)]


def test_a_part_of_a_crop() -> None:
    part = PackedCrop.pack(CROPS[0]).unpack(slice(1, 2), slice(1, 8))
    assert part.dtype == np.bool_
    assert part.tolist() == [[True, False, False, False, False, False, True]]


def test_instances_with_packed_crops_have_the_same_masks() -> None:
    fields = {
        "size_hw": (4, 12),
        "boxes_xyxy": np.zeros((2, 4), dtype=np.float32),
        "scores": np.zeros(2, dtype=np.float32),
        "class_ids": np.zeros(2, dtype=np.int64),
        "corners_xy": np.array([[3, 1], [0, 0]]),
    }
    plain = InstanceMasks(**fields, crops=tuple(CROPS))
    packed = InstanceMasks(**fields, crops=PackedCrops([*map(PackedCrop.pack, CROPS)]))
    assert packed.to_rle() == plain.to_rle()
    assert packed.areas_px.tolist() == [6, 1]
    np.testing.assert_array_equal(packed.to_full(), plain.to_full())
