"""Forms of segmentations that other tools write, on an image of 6 x 8 pixels."""

from __future__ import annotations

from typing import Any

import pytest

from segkit.formats.coco import mask_forms, recognize_mask_form, to_coco_form, validation
from segkit.utils.errors import DatasetError

SIZE_HW = (6, 8)
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
TRIANGLE = [5, 1, 7.5, 1, 7, 3]
RUNS = [7, 3, 3, 3, 3, 3, 26]  # the square: 48 pixels in all


@pytest.mark.parametrize(
    ("segmentation", "name", "expected"),
    [
        ([], mask_forms.EMPTY, None),
        ({}, mask_forms.EMPTY, None),
        (SQUARE, mask_forms.FLAT, [SQUARE]),
        ([[SQUARE]], mask_forms.NESTED, [SQUARE]),
        ([[SQUARE], [TRIANGLE]], mask_forms.NESTED, [SQUARE, TRIANGLE]),
        ([[[SQUARE, TRIANGLE]]], mask_forms.NESTED, [SQUARE, TRIANGLE]),
        ([[1, 1], [4, 1], [4, 4], [1, 4]], mask_forms.POINTS, [SQUARE]),
        ([[[1, 1], [4, 1], [4, 4], [1, 4]]], mask_forms.POINTS, [SQUARE]),
        ([[[[1, 1]], [[4, 1]], [[4, 4]], [[1, 4]]]], mask_forms.POINTS, [SQUARE]),  # OpenCV's contours
        ([[[1, 1], [4, 1], [4, 4], [1, 4]], [[5, 1], [7.5, 1], [7, 3]]], mask_forms.POINTS, [SQUARE, TRIANGLE]),
        (RUNS, mask_forms.COUNTS, {"size": [6, 8], "counts": RUNS}),
        ([1, 1, 7, 1, 7, 6, 1, 6, 2, 3, 2, 11], mask_forms.EITHER, None),  # 48 as runs; all points near the image
    ],
)
def test_each_form_is_named_and_turned_into_cocos(segmentation: Any, name: str, expected: Any) -> None:
    form = recognize_mask_form(segmentation, SIZE_HW)
    assert form is not None
    assert (form.name, form.segmentation) == (name, expected)
    assert to_coco_form(segmentation, SIZE_HW) == (segmentation if expected is None else expected)
    with pytest.raises(DatasetError, match=f"got {name.replace('[', '.').replace(']', '.')}"):
        validation.get_segmentation({"segmentation": segmentation}, SIZE_HW, "here")


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [SQUARE, [1, 1, 2, 2]],
        {"size": [6, 8], "counts": RUNS},
        [[1, 1], [2, 2]],
        [[1, 1, 2, 2]],
        [[]],
        [[SQUARE, "text"]],
        [1, 1, 4, 1, 4, 4, 1],
        [300, 1, 4, 1, 4, 4, 1, 4],  # neither near the image nor 48 pixels
        [[[[[[SQUARE]]]]]],
        "polygon",
        None,
    ],
)
def test_valid_and_unknown_segmentations_have_no_form(segmentation: Any) -> None:
    assert recognize_mask_form(segmentation, SIZE_HW) is None
    assert to_coco_form(segmentation, SIZE_HW) is segmentation
