"""Overlaps of label maps against counting pixel by pixel."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.label_pairs import count_pairs
from segkit.structures import DatasetError


def test_pairs_are_counted_over_separate_runs_and_ordered():
    truth = np.array([[2, 2, 1, 1], [1, 1, 2, 2]], dtype=np.int32)
    prediction = np.array([[0, 0, 7, 0], [7, 7, 0, 0]], dtype=np.uint8)
    # (1,7): one pixel above, two below; (1,0): one; (2,0): two above, two below.
    columns = [column.tolist() for column in count_pairs(truth, prediction)]
    assert columns == [[1, 1, 2], [0, 7, 0], [1, 3, 4]]


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5))
def test_equals_counting_pixel_by_pixel(data, shape):
    labels = st.sampled_from([0, 1, 2, 255])
    dtypes = st.sampled_from([np.uint8, np.int32, np.int64, np.uint32])
    truth = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    prediction = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    counted = Counter(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    true_labels, predicted_labels, pixels = (column.tolist() for column in count_pairs(truth, prediction))
    pairs = list(zip(true_labels, predicted_labels, strict=True))
    assert pairs == sorted(counted)
    assert pixels == [counted[pair] for pair in pairs]


def test_memory_order_does_not_matter():
    truth = np.arange(6, dtype=np.int32).reshape(2, 3)
    expected = [column.tolist() for column in count_pairs(truth, truth * 2)]
    assert [column.tolist() for column in count_pairs(np.asfortranarray(truth), truth * 2)] == expected


def test_extreme_ids_stay_apart():
    truth = np.array([[-(2**31), 2**31 - 1, 0]], dtype=np.int64)
    prediction = np.array([[2**63, 1, 2**64 - 1]], dtype=np.uint64)
    true_labels, predicted_labels, _ = count_pairs(truth, prediction)
    assert true_labels.tolist() == [-(2**31), 0, 2**31 - 1]
    assert predicted_labels.tolist() == [2**63, 2**64 - 1, 1]


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros(4, int), np.zeros((2, 2), bool), [[0, 0], [0, 0]]])
def test_other_than_integer_maps_raise_value_error(wrong):
    right = np.zeros((2, 2), dtype=np.int32)
    with pytest.raises(ValueError, match="truth must be an \\(H, W\\) integer numpy array"):
        count_pairs(wrong, right)
    with pytest.raises(ValueError, match="prediction must be"):
        count_pairs(right, wrong)


def test_sizes_that_differ_name_both_and_the_place():
    with pytest.raises(DatasetError, match=r"^image 7: expected .* one size, got 2 x 3 and 3 x 2;"):
        count_pairs(np.zeros((2, 3), int), np.zeros((3, 2), int), "image 7")
