"""Overlaps of label maps against counting pixel by pixel."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics import label_pairs
from segkit.metrics.label_pairs import count_pairs
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba"))])
def either_way(request, monkeypatch):
    monkeypatch.setattr(label_pairs, "COMPILED", request.param)


def test_pairs_are_counted_over_separate_runs_and_ordered(either_way):
    ground_truth = np.array([[2, 2, 1, 1], [1, 1, 2, 2]], dtype=np.int32)
    prediction = np.array([[0, 0, 7, 0], [7, 7, 0, 0]], dtype=np.uint8)
    # (1,7): one pixel above, two below; (1,0): one; (2,0): two above, two below.
    columns = [column.tolist() for column in count_pairs(ground_truth, prediction)]
    assert columns == [[1, 1, 2], [0, 7, 0], [1, 3, 4]]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5))
def test_equals_counting_pixel_by_pixel(either_way, data, shape):
    labels = st.sampled_from([0, 1, 2, 255])
    dtypes = st.sampled_from([np.uint8, np.int32, np.int64, np.uint32])
    ground_truth = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    prediction = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    counted = Counter(zip(ground_truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    gt_labels, pred_labels, pixels = (column.tolist() for column in count_pairs(ground_truth, prediction))
    pairs = list(zip(gt_labels, pred_labels, strict=True))
    assert pairs == sorted(counted)
    assert pixels == [counted[pair] for pair in pairs]


def test_memory_order_does_not_matter(either_way):
    ground_truth = np.arange(6, dtype=np.int32).reshape(2, 3)
    expected = [column.tolist() for column in count_pairs(ground_truth, ground_truth * 2)]
    assert [column.tolist() for column in count_pairs(np.asfortranarray(ground_truth), ground_truth * 2)] == expected


def test_extreme_ids_stay_apart(either_way):
    ground_truth = np.array([[-(2**31), 2**31 - 1, 0]], dtype=np.int64)
    prediction = np.array([[2**63, 1, 2**64 - 1]], dtype=np.uint64)
    gt_labels, pred_labels, _ = count_pairs(ground_truth, prediction)
    assert gt_labels.tolist() == [-(2**31), 0, 2**31 - 1]
    assert pred_labels.tolist() == [2**63, 2**64 - 1, 1]


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros(4, int), np.zeros((2, 2), bool), [[0, 0], [0, 0]]])
def test_other_than_integer_maps_raise_value_error(wrong):
    right = np.zeros((2, 2), dtype=np.int32)
    with pytest.raises(ValueError, match="ground_truth must be an \\(H, W\\) integer numpy array"):
        count_pairs(wrong, right)
    with pytest.raises(ValueError, match="prediction must be"):
        count_pairs(right, wrong)


def test_sizes_that_differ_name_both_and_the_place():
    with pytest.raises(DatasetError, match=r"^image 7: expected .* one size, got 2 x 3 and 3 x 2;"):
        count_pairs(np.zeros((2, 3), int), np.zeros((3, 2), int), "image 7")


needs_numba = pytest.mark.skipif(not COMPILED, reason="needs numba")
INTEGERS = [np.dtype(f"{kind}{width}") for kind in "iu" for width in (1, 2, 4, 8)]


def assert_same(ground_truth, prediction):
    compiled, sorted_ = (
        label_pairs._count_compiled(ground_truth, prediction),
        label_pairs._count_sorted(ground_truth, prediction),
    )
    for got, expected in zip(compiled, sorted_, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@needs_numba
@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([(0, 0), (0, 4), (1, 1), (1, 9), (3, 5), (64, 64), (2, 2048), (41, 101), (90, 100)]))
def test_compiled_equals_numpy_for_any_ids(data, shape):
    # Sizes around the blocks of 4096 pixels, noise and stripes, ids up to the limits of their dtypes.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    maps = []
    for _ in range(2):
        dtype = data.draw(st.sampled_from(INTEGERS))
        limits = np.iinfo(dtype)
        ids = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=8))
        ids = np.array([*ids, limits.min, limits.max], dtype=dtype)
        labels = ids[rng.integers(len(ids), size=shape)]
        if data.draw(st.booleans()):
            labels = np.repeat(labels, 7, axis=1)[:, : shape[1]]
        maps.append(labels[::-1] if data.draw(st.booleans()) else np.asfortranarray(labels))
    assert_same(*maps)


@needs_numba
@pytest.mark.parametrize("shift", [0, 20, 40, 56])
@pytest.mark.parametrize("other_shift", [0, 32, 50])
def test_compiled_equals_numpy_for_as_many_pairs_as_pixels(shift, other_shift):
    # 12,000 pairs make the table grow twice; ids that differ in their upper bits only must not share a few slots.
    index = np.arange(12_000, dtype=np.int64).reshape(100, 120)
    assert_same((index % 110) << shift, -(index // 110) << other_shift)
    assert_same(index << shift, index)


@needs_numba
def test_compiled_reads_locked_and_foreign_maps():
    ground_truth = np.array([[1, 1, 2], [2, 300, 1]], dtype=">i4")
    prediction = np.frombuffer(bytes([0, 0, 9, 9, 9, 0]), dtype=np.uint8).reshape(2, 3)
    assert_same(ground_truth, prediction)
    unaligned = np.frombuffer(b"\0" + np.arange(6, dtype=np.int32).tobytes(), dtype=np.int32, offset=1).reshape(2, 3)
    assert_same(unaligned, prediction)
