"""Columns of annotations and results: all entries at once and one by one, against pycocotools' own encoding."""

import contextlib
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.formats.coco import ImageEntries, columns, read_annotation_columns, read_result_columns
from segkit.structures import Category, CategorySet, mask_to_rle
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(1, "car", True, (0, 0, 0))])
READERS = {"area": read_annotation_columns, "score": read_result_columns}


def read(rle, size_hw):
    entry = {"category_id": 1, "score": 1, "segmentation": rle}
    return read_result_columns([ImageEntries([entry], size_hw, "here")], ["segmentation"], CATEGORIES)


@settings(deadline=None)  # the first call may compile
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_every_encoded_mask_is_accepted(mask):
    rle = mask_to_rle(mask)
    assert read(rle, mask.shape).masks == [rle]
    assert read(rle, mask.shape).area_px.tolist() == [mask.sum()]


@pytest.mark.parametrize("size_hw", [(1, 1), (37, 1000), (3000, 2000)])
def test_long_runs_are_accepted(size_hw):
    mask = np.zeros(size_hw, dtype=bool)
    assert read(mask_to_rle(mask), size_hw)
    mask[:, size_hw[1] // 2 :] = True
    mask[-1, -1] = False
    assert read(mask_to_rle(mask), size_hw)


@given(st.data(), hnp.arrays(np.bool_, st.just((9, 31))))
def test_truncated_counts_raise_a_dataset_error(data, mask):
    rle = mask_to_rle(mask)
    rle["counts"] = rle["counts"][: data.draw(st.integers(0, len(rle["counts"]) - 1))]
    expected = r"^here\[0\]: bad segmentation: expected RLE counts to (be run lengths|add up to 279 pixels)"
    with pytest.raises(DatasetError, match=expected):
        read(rle, mask.shape)


VALID = {
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


def read_spoiled(spoiled, number, fields):
    entries = [dict(VALID) for _ in range(4)]
    for index, key, value in spoiled:
        entries[index][key] = value
    images = [
        ImageEntries(entries[:1], (2, 3), "a"),
        ImageEntries([], (9, 9), "b"),
        ImageEntries(entries[1:], (2, 3), "c"),
    ]
    return READERS[number](images, fields, CATEGORIES)


SPOILED = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*VALID, "other"]), st.sampled_from(JUNK)), max_size=3)
FIELDS = st.sampled_from([[], ["bbox"], ["segmentation"], ["bbox", "segmentation"]])


@given(SPOILED, st.sampled_from(["area", "score"]), FIELDS)
def test_reading_all_entries_at_once_equals_reading_one_by_one(spoiled, number, fields):
    """Valid entries give equal columns either way; the other entries are always read one by one."""
    at_once, outcomes = columns.read_plain_columns, []
    for validated_first in (False, True):
        calls = []

        def read_plain_columns(*arguments, calls=calls, validated_first=validated_first):
            calls.append(arguments)
            return None if validated_first and len(calls) == 1 else at_once(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(columns, "read_plain_columns", read_plain_columns)
            try:
                outcomes.append(read_spoiled(spoiled, number, fields))
            except DatasetError as error:
                outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
        assert re.match(r"[ac]\[[012]\]: ", outcomes[0])
        return
    assert outcomes[0].image.tolist() == [0, 2, 2, 2]
    assert outcomes[0].thing.tolist() == [0] * 4
    assert (len(outcomes[0].boxes), len(outcomes[0].masks)) == (4 * ("bbox" in fields), 4 * ("segmentation" in fields))
    for column, other_column in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(column, other_column)


def test_a_known_share_of_junk_is_accepted():
    """The accepted values have NumPy or Python types that correspond to JSON, or are not read."""
    accepted = {"category_id": 0, "iscrowd": 0, "score": 0, "area": 0, "bbox": 0, "segmentation": 0, "other": 0}
    for key in accepted:
        for value in JUNK:
            with contextlib.suppress(DatasetError):
                read_spoiled([(1, key, value)], "area", ["bbox", "segmentation"])
                accepted[key] += 1
    # category_id: 1, int64(1); iscrowd: true, 1, int64(1); area: 1, 1.0, 2, int64(1), float32; bbox: tuple, array;
    # segmentation: a polygon, counts "6", "15" as bytes and runs as numbers, size as a tuple.
    assert accepted == {
        "category_id": 2,
        "iscrowd": 3,
        "score": len(JUNK),
        "area": 5,
        "bbox": 2,
        "segmentation": 5,
        "other": len(JUNK),
    }


def test_entries_of_stuff_are_checked_and_left_out():
    categories = CategorySet([Category(1, "car", True, (0, 0, 0)), Category(2, "sky", False, (0, 0, 0))])
    entries = [VALID | {"category_id": 2, "score": 0.25}, VALID]
    things = read_result_columns([ImageEntries(entries, (2, 3), "a")], ["bbox", "segmentation"], categories)
    assert (things.number.tolist(), things.boxes.tolist(), len(things.masks)) == ([0.5], [[0, 1, 2.5, 3]], 1)
    assert things.area_px.tolist() == [5]
    entries[0]["score"] = None
    with pytest.raises(DatasetError, match=r"^a\[0\]: expected `score` to be an integer or a number, got None"):
        read_result_columns([ImageEntries(entries, (2, 3), "a")], [], categories)


def test_an_invalid_size_raises_an_error():
    with pytest.raises(ValueError, match="size_hw must be two numbers of pixels from 1 on"):
        read_result_columns([ImageEntries([], (0, 4), "a")], [], CATEGORIES)
