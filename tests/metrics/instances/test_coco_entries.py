"""The run total of compressed counts, against pycocotools' own encoding."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.instances.coco_entries import ImageEntries, read_columns, read_entry, read_image
from segkit.structures import Category, CategorySet, mask_to_rle
from segkit.utils.errors import DatasetError

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


GOOD = {
    "category_id": 1,
    "iscrowd": 0,
    "score": 0.5,
    "area": 4,
    "bbox": [0, 1, 2.5, 3],
    "segmentation": {"size": [2, 3], "counts": "15"},
}
JUNK = [None, True, 1, 1.0, 2, -1, 10**400, math.nan, math.inf, "1", b"1", [], {}, [1], (0, 1, 2, 3), np.int64(1)]
JUNK += [np.float32(0.5), np.array([0, 0, 1, 1]), [0, 1, -2, 3], [0, 1, 2, "3"], [[0, 0, 1, 0, 1, 1]], [[0, 1]]]
JUNK += [{"size": [2, 3], "counts": counts} for counts in ("6", b"15", [1, 5], "7", "é", 5, None)]
JUNK += [{"size": size, "counts": "15"} for size in ([3, 2], (2, 3), [2.0, 3], ["2", 3], None, 5)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*GOOD, "other"]), st.sampled_from(JUNK)), max_size=3),
    st.sampled_from(["area", "score"]),
    st.sampled_from([[], ["bbox"], ["segmentation"], ["bbox", "segmentation"]]),
)
def test_columns_hold_what_each_entry_says(spoiled, number, fields):
    """One column-wise look at all entries refuses and reads exactly what `read_entry` does."""
    entries = [dict(GOOD) for _ in range(4)]
    for index, key, value in spoiled:
        entries[index][key] = value
    images = [
        ImageEntries(entries[:1], (2, 3), "a"),
        ImageEntries([], (9, 9), "b"),
        ImageEntries(entries[1:], (2, 3), "c"),
    ]
    try:
        one_by_one = [entry for image in images for entry in read_image(image, number, fields, CATEGORIES)]
    except DatasetError as error:
        with pytest.raises(DatasetError, match="^" + re.escape(str(error)) + "$"):
            read_columns(images, number, fields, CATEGORIES)
        return
    found = read_columns(images, number, fields, CATEGORIES)
    assert found.image.tolist() == [0, 2, 2, 2]
    assert found.thing.tolist() == [0] * 4
    assert found.number.tolist() == [entry[number] for entry in one_by_one]
    assert found.iscrowd.tolist() == [entry["iscrowd"] for entry in one_by_one]
    if "bbox" in fields:
        assert found.boxes.tolist() == [entry["bbox"] for entry in one_by_one]
    if "segmentation" in fields:
        assert found.masks == [entry["segmentation"] for entry in one_by_one]


def test_stuff_is_checked_and_left_out():
    categories = CategorySet([Category(1, "car", True, (0, 0, 0)), Category(2, "sky", False, (0, 0, 0))])
    entries = [GOOD | {"category_id": 2, "score": 0.25}, GOOD]
    found = read_columns([ImageEntries(entries, (2, 3), "a")], "score", ["bbox", "segmentation"], categories)
    assert (found.number.tolist(), found.boxes.tolist(), len(found.masks)) == ([0.5], [[0, 1, 2.5, 3]], 1)
    assert found.area_px.tolist() == [5]
    entries[0]["score"] = None
    with pytest.raises(DatasetError, match=r"^a\[0\]: expected a finite score"):
        read_columns([ImageEntries(entries, (2, 3), "a")], "score", [], categories)
