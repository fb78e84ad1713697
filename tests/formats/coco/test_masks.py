from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from segkit.formats.coco.masks import MAX_OUTLINE_PX, drop_slivers, find_mask_fault, is_too_long
from segkit.structures import mask_to_rle

TRIANGLE = [0, 0, 4.5, 0, 0, 3]


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_every_encoded_mask_is_valid(mask: np.ndarray) -> None:
    rle = mask_to_rle(mask)
    assert find_mask_fault(rle, mask.shape) == ""
    assert find_mask_fault(rle, None) == ""


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=12))
def test_sums_of_long_runs_equal_pycocotools(runs: list[int]) -> None:
    total = sum(runs)
    if total == 0:
        return
    plain = {"size": [1, total], "counts": runs}
    assert find_mask_fault(plain, (1, total)) == ""
    packed = coco_mask.frPyObjects(plain, 1, total)
    rle = {"size": [1, total], "counts": packed["counts"].decode()}
    assert find_mask_fault(rle, (1, total)) == ""
    assert "add up to" in find_mask_fault({**rle, "size": [1, total + 1]}, None)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20))
def test_accepted_texts_are_decoded_by_pycocotools(text: str) -> None:
    # 600 pixels: pycocotools decodes accepted texts to 0 and 1 only.
    rle = {"size": [20, 30], "counts": text}
    if not find_mask_fault(rle, (20, 30)):
        assert set(np.unique(coco_mask.decode(rle))) <= {0, 1}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "got none"),
        ([[]], "three or more pairs"),
        ([[0, 0, 1, 1]], "three or more pairs"),
        ([[0, 0, 1, 1, 2, 2, 3]], "three or more pairs"),
        ([TRIANGLE, 5], "every polygon"),
        ([[0, 0, 1, "1", 2, 2]], "every polygon"),
        ([[0, 0, 1, True, 2, 2]], "every polygon"),
        ([[0, 0, 1, float("nan"), 2, 2]], "every polygon"),
        ([[0, 0, 1, 10**400, 2, 2]], "every polygon"),
        ([[0, 0, 1, 1e9, 2, 2]], "expected polygons within 1e+06 pixels"),
        ([TRIANGLE, [0, 0, 1e6, 0] * 3], "an outline of at most 4e+06 pixels"),
        ("polygon", "expected polygons or RLE, got str"),
        (None, "expected polygons or RLE, got NoneType"),
        ({"counts": [12]}, "with a size of"),
        ({"counts": [12], "size": [4, 3]}, "with a size of"),
        ({"counts": [12], "size": [3, 4.0]}, "with a size of"),
        ({"size": [3, 4]}, "counts to be run lengths"),
        ({"counts": None, "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": [6, 6.0], "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": [13, -1], "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": [10**30], "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": "", "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": "é", "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": "o" * 30, "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": "o" * 30 + "0", "size": [3, 4]}, "counts to be run lengths"),
        ({"counts": [5, 6], "size": [3, 4]}, "add up to 12 pixels, got 11"),
        ({"counts": [], "size": [3, 4]}, "add up to 12 pixels, got 0"),
    ],
)
def test_each_error_has_its_message(segmentation: object, message: str) -> None:
    assert message in find_mask_fault(segmentation, (3, 4))


def test_polygons_are_valid() -> None:
    assert find_mask_fault([TRIANGLE, TRIANGLE], (3, 4)) == ""


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6)), min_size=3, max_size=8))
def test_outlines_are_too_long_above_the_maximum(points: list[tuple[float, float]]) -> None:
    steps = [max(abs(x - a), abs(y - b)) for (x, y), (a, b) in zip(points, [points[-1], *points[:-1]], strict=True)]
    polygon = [number for point in points for number in point]
    assert is_too_long(polygon) == (sum(steps) > MAX_OUTLINE_PX)


def test_only_slivers_are_dropped() -> None:
    assert drop_slivers([[], [1, 2], [1, 2, 3, 4], TRIANGLE, [1, 2, 3]]) == [TRIANGLE, [1, 2, 3]]
    rle = {"size": [1, 1], "counts": [1]}
    assert drop_slivers(rle) is rle
