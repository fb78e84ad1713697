"""RLE of crops: the bytes of pycocotools, for crops anywhere in the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segkit.structures import rle
from segkit.structures.rle import encode_crops


def encode_whole(crop: np.ndarray, left: int, top: int, size_hw: tuple[int, int]) -> dict:
    mask = np.zeros(size_hw, dtype=np.uint8, order="F")
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    rle = coco_mask.encode(mask)
    return {"size": [*size_hw], "counts": rle["counts"].decode()}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), size_hw=st.tuples(st.integers(1, 8), st.integers(1, 8)), count=st.integers(0, 4))
def test_bytes_are_those_of_pycocotools(data: st.DataObject, size_hw: tuple[int, int], count: int) -> None:
    crops, corners = [], []
    for _ in range(count):
        top, left = (data.draw(st.integers(0, side - 1)) for side in size_hw)
        height, width = data.draw(st.integers(0, size_hw[0] - top)), data.draw(st.integers(0, size_hw[1] - left))
        crops.append(data.draw(hnp.arrays(np.bool_, (height, width))))
        corners.append((left, top))
    expected = [encode_whole(crop, *corner, size_hw) for crop, corner in zip(crops, corners, strict=True)]
    assert encode_crops(crops, corners, size_hw) == expected


def test_large_and_full_masks_have_the_same_bytes() -> None:
    """Counts of several digits, negative differences, masks that fill the image or whole columns."""
    rng, size_hw = np.random.default_rng(0), (700, 900)
    crops = [
        np.ones(size_hw, dtype=np.bool_),
        np.ones((700, 5), dtype=np.bool_),
        rng.random((300, 400)) < 0.5,
        rng.random((700, 40)) < 0.9,
        np.ones((1, 1), dtype=np.bool_),
        np.zeros((9, 9), dtype=np.bool_),
    ]
    corners = [(0, 0), (895, 0), (250, 100), (7, 0), (899, 699), (3, 3)]
    expected = [encode_whole(crop, *corner, size_hw) for crop, corner in zip(crops, corners, strict=True)]
    assert encode_crops(crops, corners, size_hw) == expected


def test_masks_with_too_many_runs_for_one_pass_have_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle, "RUNS_AT_ONCE", 5)  # the first two have 3 + 5 runs, the last one 3
    crops = [np.array([[True]]), np.array([[True], [False], [True]]), np.array([[True, True]])]
    corners = [(1, 1), (0, 1), (2, 2)]
    expected = [encode_whole(crop, *corner, (5, 6)) for crop, corner in zip(crops, corners, strict=True)]
    assert rle.encode_crops(crops, corners, (5, 6)) == expected
