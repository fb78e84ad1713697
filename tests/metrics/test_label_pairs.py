"""Overlaps of label maps against counting pixel by pixel."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics import label_pairs
from segkit.metrics.label_pairs import count_pairs, count_run_pairs
from segkit.structures import IdRuns, id_runs
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba"))])
def with_and_without_numba(request, monkeypatch):
    for module in (label_pairs, id_runs):
        monkeypatch.setattr(module, "COMPILED", request.param)


def assert_counts_pixels(ground_truth, prediction):
    """The pairs, their order, dtypes and pixels equal those of counting pixel by pixel."""
    counted = Counter(zip(ground_truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    gt_labels, pred_labels, pixels = count_pairs(ground_truth, prediction)
    assert (gt_labels.dtype, pred_labels.dtype) == (ground_truth.dtype, prediction.dtype)
    pairs = list(zip(gt_labels.tolist(), pred_labels.tolist(), strict=True))
    assert pairs == sorted(counted)
    assert pixels.tolist() == [counted[pair] for pair in pairs]


def test_label_pairs_are_counted_over_separate_runs_and_ordered():
    ground_truth = np.array([[2, 2, 1, 1], [1, 1, 2, 2]], dtype=np.int32)
    prediction = np.array([[0, 0, 7, 0], [7, 7, 0, 0]], dtype=np.uint8)
    # (1,7): one pixel above, two below; (1,0): one; (2,0): two above, two below.
    columns = [column.tolist() for column in count_pairs(ground_truth, prediction)]
    assert columns == [[1, 1, 2], [0, 7, 0], [1, 3, 4]]


@settings(deadline=None)
@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5))
def test_equals_counting_pixel_by_pixel(data, shape):
    labels = st.sampled_from([0, 1, 2, 255])
    dtypes = st.sampled_from([np.uint8, np.int32, np.int64, np.uint32])
    ground_truth = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    prediction = data.draw(hnp.arrays(data.draw(dtypes), shape, elements=labels))
    assert_counts_pixels(ground_truth, prediction)


def test_memory_order_does_not_matter():
    ground_truth = np.arange(6, dtype=np.int32).reshape(2, 3)
    expected = [column.tolist() for column in count_pairs(ground_truth, ground_truth * 2)]
    assert [column.tolist() for column in count_pairs(np.asfortranarray(ground_truth), ground_truth * 2)] == expected


def test_extreme_ids_are_distinguished():
    ground_truth = np.array([[-(2**31), 2**31 - 1, 0]], dtype=np.int64)
    prediction = np.array([[2**63, 1, 2**64 - 1]], dtype=np.uint64)
    gt_labels, pred_labels, _ = count_pairs(ground_truth, prediction)
    assert gt_labels.tolist() == [-(2**31), 0, 2**31 - 1]
    assert pred_labels.tolist() == [2**63, 2**64 - 1, 1]


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros(4, int), np.zeros((2, 2), bool), [[0, 0], [0, 0]]])
def test_non_integer_maps_raise_value_error(wrong):
    right = np.zeros((2, 2), dtype=np.int32)
    with pytest.raises(ValueError, match="ground_truth must be an \\(H, W\\) integer numpy array"):
        count_pairs(wrong, right)
    with pytest.raises(ValueError, match="prediction must be"):
        count_pairs(right, wrong)


def test_different_sizes_are_named_with_the_image():
    with pytest.raises(DatasetError, match=r"^image 7: expected .* one size, got 2 x 3 and 3 x 2;"):
        count_pairs(np.zeros((2, 3), int), np.zeros((3, 2), int), "image 7")


INTEGERS = [np.dtype(f"{kind}{width}") for kind in "iu" for width in (1, 2, 4, 8)]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([(0, 0), (0, 4), (1, 1), (1, 9), (3, 5), (64, 64), (2, 2048), (41, 101), (90, 100)]))
def test_any_ids_are_counted(data, shape):
    # Noise and stripes, ids up to the limits of their dtypes.
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
    assert_counts_pixels(*maps)


@pytest.mark.parametrize("shift", [0, 20, 40, 56])
@pytest.mark.parametrize("other_shift", [0, 32, 50])
def test_as_many_label_pairs_as_pixels(shift, other_shift):
    index = np.arange(12_000, dtype=np.int64).reshape(100, 120)
    assert_counts_pixels((index % 110) << shift, -(index // 110) << other_shift)
    assert_counts_pixels(index << shift, index)


def test_tables_and_sorting_agree_at_the_limit_of_the_table():
    for largest in (255, 256):  # 256 x 256 cells are a table, 257 x 257 are sorted
        index = np.arange(600, dtype=np.int64).reshape(20, 30)
        assert_counts_pixels(
            (index % (largest + 1)).astype(np.uint16), (largest - index % (largest + 1)).astype(np.uint64)
        )


def test_read_only_unaligned_and_big_endian_maps():
    ground_truth = np.array([[1, 1, 2], [2, 300, 1]], dtype=">i4")
    prediction = np.frombuffer(bytes([0, 0, 9, 9, 9, 0]), dtype=np.uint8).reshape(2, 3)
    assert_counts_pixels(ground_truth, prediction)
    unaligned = np.frombuffer(b"\0" + np.arange(6, dtype=np.int32).tobytes(), dtype=np.int32, offset=1).reshape(2, 3)
    assert_counts_pixels(unaligned, prediction)


def assert_equals_count_pairs(ground_truth, prediction):
    got = count_run_pairs(IdRuns.from_map(ground_truth), IdRuns.from_map(prediction))
    for column, expected in zip(got, count_pairs(ground_truth, prediction), strict=True):
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)


def test_run_pairs_are_counted_over_separate_runs_and_ordered(with_and_without_numba):
    ground_truth = np.array([[2, 2, 1, 1], [1, 1, 2, 2]], dtype=np.int32)
    prediction = np.array([[0, 0, 7, 0], [7, 7, 0, 0]], dtype=np.int32)
    # (1,0): one pixel; (1,7): one above, two below; (2,0): two above, two below.
    columns = count_run_pairs(IdRuns.from_map(ground_truth), IdRuns.from_map(prediction))
    assert [column.tolist() for column in columns] == [[1, 1, 2], [0, 7, 0], [1, 3, 4]]


IDS = [-(2**31), -1, 0, 1, 2, 3, 255, 256, 65535, 65536, 2**24 - 1, 2**31 - 1]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(1, len(IDS)))
def test_run_pairs_equal_label_pairs(with_and_without_numba, seed, height, width, repeat, number):
    rng = np.random.default_rng(seed)
    maps = rng.choice(rng.permutation(IDS)[:number], (2, height, width)).astype(np.int32)
    stripes = np.repeat(maps[0], repeat, axis=1)[:, :width], maps[1]
    assert_equals_count_pairs(*stripes)
    assert_equals_count_pairs(*stripes[::-1])
    assert_equals_count_pairs(maps[0], maps[0])


def test_as_many_run_pairs_as_pixels(with_and_without_numba):
    index = np.arange(10_000, dtype=np.int32).reshape(80, 125)
    for shift in (0, 8, 16):  # ids that differ in their upper bits only must not share a few slots
        assert_equals_count_pairs((index % 100) << shift, (index // 100) << shift)


def test_neighbouring_runs_of_one_id_are_one(with_and_without_numba):
    starts, ids = np.array([[0, 1, 2], [5, 5, 6]], dtype=np.int32)
    split = IdRuns((1, 4), starts, ids)
    columns = count_run_pairs(split, IdRuns.from_map(np.array([[8, 8, 8, 0]], dtype=np.int32)))
    assert [column.tolist() for column in columns] == [[5, 6, 6], [8, 0, 8], [2, 1, 1]]


@pytest.mark.parametrize(("first", "second"), [((2, 3), (3, 2)), ((1, 6), (2, 3)), ((0, 3), (0, 4))])
def test_different_sizes_of_runs_are_named_with_the_image(with_and_without_numba, first, second):
    maps = [IdRuns.from_map(np.zeros(shape, np.int32)) for shape in (first, second)]
    sizes = "got {} x {} and {} x {}".format(*first, *second)
    with pytest.raises(
        DatasetError, match=rf"^image 7: expected ground truth and prediction of one size, {sizes}; bring"
    ):
        count_run_pairs(*maps, "image 7")
