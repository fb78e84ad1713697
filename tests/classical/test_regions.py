from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import connected_components, relabel, to_instances

CORNERS = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
LABEL_MAPS = arrays(np.int32, st.tuples(st.integers(0, 7), st.integers(0, 7)), elements=st.integers(0, 3))


def test_components_are_numbered_in_the_order_of_their_first_pixel():
    assert connected_components(CORNERS).tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 0]]
    by_sides = connected_components(CORNERS, connectivity=4)
    assert by_sides.tolist() == [[1, 0, 0, 2], [0, 3, 0, 2], [0, 0, 0, 0], [4, 4, 0, 0]]
    assert by_sides.dtype == np.int32


def test_small_components_are_background():
    regions = connected_components(CORNERS, min_area_px=2, connectivity=4)
    assert regions.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [2, 2, 0, 0]]


def test_touching_labels_stay_separate_and_scattered_labels_are_split():
    regions = connected_components(np.array([[5, 5, 2, 5]], dtype=np.int32))
    assert regions.tolist() == [[1, 1, 2, 3]]


@given(LABEL_MAPS, st.sampled_from([4, 8]))
def test_components_are_connected_and_of_one_label(label_map, connectivity):
    pieces = connected_components(label_map, connectivity=connectivity)
    assert ((pieces == 0) == (label_map == 0)).all()
    for piece in range(1, pieces.max(initial=0) + 1):
        assert len(np.unique(label_map[pieces == piece])) == 1
        assert connected_components(pieces == piece, connectivity=connectivity).max() == 1


@given(LABEL_MAPS)
def test_relabelling_only_renames(label_map):
    renamed = relabel(label_map)
    pairs = set(zip(label_map.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len({old for old, _ in pairs}) == len(pairs) == len({new for _, new in pairs})
    firsts = renamed[renamed > 0]
    _, first = np.unique(firsts, return_index=True)
    assert sorted(np.unique(firsts).tolist()) == list(range(1, len(first) + 1))
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (2, 2)])
def test_an_empty_map_has_no_region(shape):
    assert connected_components(np.zeros(shape, dtype=bool)).shape == shape
    assert relabel(np.zeros(shape, dtype=np.int32)).tolist() == np.zeros(shape).tolist()
    instances = to_instances(np.zeros(shape, dtype=np.int32), 0)
    assert (len(instances), instances.size_hw) == (0, shape)
    assert instances.boxes_xyxy.shape == (0, 4)


def test_regions_become_instances_in_the_order_of_their_labels():
    instances = to_instances(np.array([[7, 0, 0], [2, 7, 2]], dtype=np.int32), 4)
    assert instances.to_full().tolist() == [[[0, 0, 0], [1, 0, 1]], [[1, 0, 0], [0, 1, 0]]]
    assert instances.boxes_xyxy.tolist() == [[0, 1, 3, 2], [0, 0, 2, 2]]
    assert instances.scores.tolist() == [1.0, 1.0]
    assert instances.class_ids.tolist() == [4, 4]
    dtypes = (instances.boxes_xyxy.dtype, instances.scores.dtype, instances.class_ids.dtype, instances.corners_xy.dtype)
    assert dtypes == (np.float32, np.float32, np.int64, np.int64)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int64])
def test_any_integer_dtype_is_accepted(dtype):
    full = to_instances(np.array([[0, 1], [1, 1]], dtype=dtype), 0).to_full()
    assert full.tolist() == [[[False, True], [True, True]]]


@given(LABEL_MAPS)
def test_instances_give_the_label_map_back(label_map):
    full = to_instances(label_map, 0).to_full()
    labels = [label for label in np.unique(label_map) if label]
    assert len(full) == len(labels)
    for mask, label in zip(full, labels, strict=True):
        assert (mask == (label_map == label)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: connected_components(np.zeros((2, 2))),
            r"mask must be \(H, W\) bool or integer, got \(2, 2\) float64",
        ),
        (lambda: connected_components(np.zeros(4, bool)), r"mask must be \(H, W\) bool or integer, got \(4,\) bool"),
        (lambda: connected_components(CORNERS, connectivity=6), "connectivity must be 4 or 8, got 6"),
        (lambda: relabel(np.full((2, 2), -1)), "label_map must have no negative label, got -1"),
        (lambda: to_instances(np.full((2, 2), -3), 0), "label_map must have no negative label, got -3"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
