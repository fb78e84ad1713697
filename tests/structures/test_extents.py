"""Areas and boxes of segments, against a plain count."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.structures import MAX_SEGMENT_ID, Extent, IdRuns


@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
        elements=st.sampled_from([0, 1, 2, 300, MAX_SEGMENT_ID]),
    )
)
def test_extents_equal_a_plain_count(segment_ids: np.ndarray) -> None:
    expected = {}
    for segment_id in sorted({*segment_ids.ravel().tolist()} - {0}):
        ys, xs = np.nonzero(segment_ids == segment_id)
        box = int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1
        expected[segment_id] = Extent(len(xs), box)
    assert IdRuns.from_map(segment_ids).extents() == expected
    assert list(IdRuns.from_map(segment_ids).extents()) == list(expected)


def test_extents_do_not_join_runs_over_the_end_of_a_row() -> None:
    assert IdRuns.from_map(np.array([[0, 5], [5, 0]], dtype=np.int32)).extents() == {5: Extent(2, (0, 0, 2, 2))}
