"""A map as runs of equal ids, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.structures import IdRuns, id_runs
from segkit.utils.compiled import COMPILED

WITH_NUMBA = [False, pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba"))]
IDS = st.sampled_from([0, 1, 2, 255, 256, 65536, 2**24 - 1, 2**31 - 1, -(2**31)])


@pytest.fixture(params=WITH_NUMBA, autouse=True)
def with_and_without_numba(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_runs, "COMPILED", request.param)


def test_drawn_map() -> None:
    runs = IdRuns.from_map(np.array([[4, 4, 7], [4, 9, 9]], dtype=np.int32))
    assert runs.size_hw == (2, 3)
    assert runs.starts.tolist() == [0, 2, 3, 4]
    assert runs.ids.tolist() == [4, 7, 4, 9]
    assert runs.lengths().tolist() == [2, 1, 1, 2]
    assert runs.areas_px() == {4: 3, 7: 1, 9: 2}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(), st.sampled_from([(0, 0), (0, 3), (4, 0), (1, 1), (1, 8), (3, 5), (7, 9), (16, 16)]), st.integers(1, 9)
)
def test_round_trip(data: st.DataObject, shape: tuple[int, int], repeat: int) -> None:
    drawn = data.draw(hnp.arrays(np.int32, shape, elements=IDS))
    ids = np.repeat(drawn, repeat, axis=1)[:, : shape[1]]
    for segment_ids in (ids, np.asfortranarray(ids), ids[::-1, ::-1]):
        runs = IdRuns.from_map(segment_ids)
        assert (runs.starts.dtype, runs.ids.dtype) == (np.int32, np.int32)
        back = runs.to_map()
        assert back.dtype == np.int32
        np.testing.assert_array_equal(back, segment_ids)
        assert runs.lengths().sum() == segment_ids.size
        assert {*range(0, segment_ids.size, shape[1] or 1)} <= {*runs.starts.tolist()}  # the rows
        assert (np.diff(runs.starts) > 0).all()
        values, counts = np.unique(segment_ids, return_counts=True)
        assert runs.areas_px() == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_neighbours_may_be_equal() -> None:
    starts, ids = np.array([[0, 3, 4], [5, 5, 1]], dtype=np.int32)
    runs = IdRuns((2, 3), starts, ids)
    assert runs.to_map().tolist() == [[5, 5, 5], [5, 1, 1]]
    assert runs.areas_px() == {1: 2, 5: 4}


def test_other_integers_become_int32() -> None:
    for dtype in (np.uint8, np.int64, np.uint32):
        runs = IdRuns.from_map(np.array([[3, 3], [9, 0]], dtype=dtype))
        assert runs.ids.dtype == np.int32
        assert runs.to_map().tolist() == [[3, 3], [9, 0]]
