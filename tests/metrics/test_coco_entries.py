"""The run total of compressed counts, against pycocotools' own encoding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.coco_entries import read_entry
from segkit.structures import Category, CategorySet, DatasetError, mask_to_rle

CATEGORIES = CategorySet([Category(1, "car", True, (0, 0, 0))])


def read(rle, size_hw):
    return read_entry(
        {"category_id": 1, "score": 1, "segmentation": rle}, "score", ["segmentation"], CATEGORIES, size_hw, "here"
    )


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_every_encoded_mask_is_accepted(mask):
    rle = mask_to_rle(mask)
    assert read(rle, mask.shape)["segmentation"] == rle


@pytest.mark.parametrize("size_hw", [(1, 1), (37, 1000), (3000, 2000)])
def test_long_runs_are_accepted(size_hw):
    mask = np.zeros(size_hw, dtype=bool)
    assert read(mask_to_rle(mask), size_hw)
    mask[:, size_hw[1] // 2 :] = True
    mask[-1, -1] = False
    assert read(mask_to_rle(mask), size_hw)


@given(st.data(), hnp.arrays(np.bool_, st.just((9, 31))))
def test_counts_cut_off_anywhere_are_refused(data, mask):
    rle = mask_to_rle(mask)
    rle["counts"] = rle["counts"][: data.draw(st.integers(0, len(rle["counts"]) - 1))]
    with pytest.raises(DatasetError, match=r"^here: expected (a COCO RLE|RLE runs over 279 pixels)"):
        read(rle, mask.shape)
