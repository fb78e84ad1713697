"""Stretching intensities: by hand, at the edges of what numbers can be, and in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from segkit.formats import intensities
from segkit.formats.intensities import to_uint8

# 0, 10 ... 2000 in 3 rows: of 201 values the 0.5th percentile is the second, 10, and the 99.5th the last but one, 1990.
RAMP = np.arange(0, 2010, 10).reshape(3, 67)
RAMP_SHOWN = np.array([round(255 * min(max(value - 10, 0), 1980) / 1980) for value in range(0, 2010, 10)]).reshape(
    3, 67
)


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "i4", "u4", "i8", "f4", ">f4", "f8"])
def test_a_ramp(dtype: str) -> None:
    shown = to_uint8(RAMP.astype(dtype))
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, RAMP_SHOWN)


@pytest.mark.parametrize("dtype", ["u2", ">u2", "f4", "i4"])
def test_big_ones_are_shown_alike(dtype: str) -> None:
    """Beyond a block, and of 16 bits beyond the number of levels; percentiles stay those of the ramp, repeated."""
    copies = intensities.BLOCK // RAMP.size + 2
    shown = to_uint8(np.tile(RAMP, (copies, 1)).astype(dtype))
    np.testing.assert_array_equal(shown[:3], to_uint8(np.tile(RAMP, (copies, 1)))[:3])
    np.testing.assert_array_equal(shown, np.tile(shown[:3], (copies, 1)))
    assert (np.abs(shown[:3].astype(int) - RAMP_SHOWN) <= 1).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7, 7, 7], [0, 0, 0]),
        ([0.0, np.nan, 10.0], [0, 0, 255]),
        ([np.inf, -np.inf, 1.0, 2.0], [0, 0, 0, 255]),
        ([np.nan, np.inf], [0, 0]),
        ([-1e308, 0.0, 1e308], [0, 128, 255]),  # 127.5 is rounded to even
        ([-(2**62), 2**62], [0, 255]),
        ([], []),
    ],
)
def test_strange_values(values: list[float], expected: list[int], caplog: pytest.LogCaptureFixture) -> None:
    assert to_uint8(np.array([values]), (0, 100), "a.tif").tolist() == [expected]
    bad = len(values) - int(np.isfinite(values).sum())
    told = [f"a.tif: {bad} values are NaN or infinite, shown as the lowest"] if bad else []
    assert [record.getMessage() for record in caplog.records] == told


def test_percentiles_that_are_equal_make_a_step() -> None:
    # Both percentiles are among the many zeros: what is brighter is white.
    np.testing.assert_array_equal(to_uint8(np.eye(100), (0.5, 50)), np.eye(100) * 255)
    # Percentiles that interpolate between extremes of opposite sign overflow the type of the values.
    assert to_uint8(np.float32([[-3e38, 3e38]]), (30, 60)).tolist() == [[0, 255]]


@given(hnp.arrays(st.sampled_from([np.int16, np.uint8, np.uint16, np.float32, np.float64, np.int64]), (2, 3, 4)))
def test_the_order_is_kept(values: NDArray[Any]) -> None:
    shown = to_uint8(values, (5, 95))
    finite = np.isfinite(values.astype(np.float64))
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(shown[finite][order].astype(int)) >= 0).all()
    assert not shown[~finite].any()
