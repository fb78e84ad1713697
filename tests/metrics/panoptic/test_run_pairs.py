"""Pairs of ids counted over runs equal pairs counted over pixels."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkit.metrics.label_pairs import count_pairs
from segkit.metrics.panoptic import run_pairs
from segkit.metrics.panoptic.run_pairs import count_run_pairs
from segkit.structures import IdRuns, id_runs
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba"))])
def either_way(request, monkeypatch):
    for module in (run_pairs, id_runs):
        monkeypatch.setattr(module, "COMPILED", request.param)


def assert_equals_count_pairs(ground_truth, prediction):
    got = count_run_pairs(IdRuns.from_map(ground_truth), IdRuns.from_map(prediction))
    for column, expected in zip(got, count_pairs(ground_truth, prediction), strict=True):
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)


def test_pairs_are_counted_over_separate_runs_and_ordered(either_way):
    ground_truth = np.array([[2, 2, 1, 1], [1, 1, 2, 2]], dtype=np.int32)
    prediction = np.array([[0, 0, 7, 0], [7, 7, 0, 0]], dtype=np.int32)
    # (1,0): one pixel; (1,7): one above, two below; (2,0): two above, two below.
    columns = count_run_pairs(IdRuns.from_map(ground_truth), IdRuns.from_map(prediction))
    assert [column.tolist() for column in columns] == [[1, 1, 2], [0, 7, 0], [1, 3, 4]]


IDS = [-(2**31), -1, 0, 1, 2, 3, 255, 256, 65535, 65536, 2**24 - 1, 2**31 - 1]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(1, len(IDS)))
def test_equals_count_pairs(either_way, seed, height, width, repeat, number):
    rng = np.random.default_rng(seed)
    maps = rng.choice(rng.permutation(IDS)[:number], (2, height, width)).astype(np.int32)
    stripes = np.repeat(maps[0], repeat, axis=1)[:, :width], maps[1]
    assert_equals_count_pairs(*stripes)
    assert_equals_count_pairs(*stripes[::-1])
    assert_equals_count_pairs(maps[0], maps[0])


def test_as_many_pairs_as_pixels(either_way):
    index = np.arange(10_000, dtype=np.int32).reshape(80, 125)
    for shift in (0, 8, 16):  # ids that differ in their upper bits only must not share a few slots
        assert_equals_count_pairs((index % 100) << shift, (index // 100) << shift)


def test_neighbouring_runs_of_one_id_are_one(either_way):
    starts, ids = np.array([[0, 1, 2], [5, 5, 6]], dtype=np.int32)
    split = IdRuns((1, 4), starts, ids)
    columns = count_run_pairs(split, IdRuns.from_map(np.array([[8, 8, 8, 0]], dtype=np.int32)))
    assert [column.tolist() for column in columns] == [[5, 6, 6], [8, 0, 8], [2, 1, 1]]


@pytest.mark.parametrize(("first", "second"), [((2, 3), (3, 2)), ((1, 6), (2, 3)), ((0, 3), (0, 4))])
def test_sizes_that_differ_name_both_and_the_place(either_way, first, second):
    maps = [IdRuns.from_map(np.zeros(shape, np.int32)) for shape in (first, second)]
    sizes = "got {} x {} and {} x {}".format(*first, *second)
    with pytest.raises(
        DatasetError, match=rf"^image 7: expected ground truth and prediction of one size, {sizes}; bring"
    ):
        count_run_pairs(*maps, "image 7")
