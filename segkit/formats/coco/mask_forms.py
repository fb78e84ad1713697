"""Forms of `segmentation` that other tools write: each is named, and can be turned into COCO's form."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats.coco.masks import MIN_POLYGON_NUMBERS, drop_slivers, find_mask_fault
from segkit.utils.json_fields import all_finite

EMPTY = "an empty one"
FLAT = "one flat list of x and y"
COUNTS = "a list of run lengths without size"
EITHER = "a flat list of numbers that may be a polygon or run lengths"
POINTS = "lists of points [x, y]"
NESTED = "polygons inside of too many lists"
MAX_LISTS = 5  # in each other: OpenCV writes each point in a list of its own


class MaskForm(NamedTuple):
    """What an invalid segmentation is.

    Attributes:
        name: one of the texts of this module.
        segmentation: the same mask in COCO's form; None if there is none, or if it would be a guess.
    """

    name: str
    segmentation: Any = None


def recognize_mask_form(segmentation: Any, size_hw: tuple[int, int]) -> MaskForm | None:
    """Recognize a `segmentation` that is not in COCO's form.

    A flat list is a polygon if its points are near the image, and run lengths if they add up to the image.

    Args:
        segmentation: a COCO `segmentation`, or anything else.
        size_hw: (height, width) of the image in pixels.

    Returns:
        What it is; None if it is valid, or is nothing that this function knows.
    """
    if segmentation in ([], {}):
        return MaskForm(EMPTY)
    if not isinstance(segmentation, list) or not find_mask_fault(drop_slivers(segmentation), size_hw):
        return None
    if all_finite(segmentation):
        return _recognize_numbers(segmentation, size_hw)
    polygons = _collect_polygons(segmentation, join_points=True)
    if polygons is None or find_mask_fault(drop_slivers(polygons), size_hw):
        return None
    return MaskForm(NESTED if polygons == _collect_polygons(segmentation, join_points=False) else POINTS, polygons)


def to_coco_form(segmentation: Any, size_hw: tuple[int, int]) -> Any:
    """Turn a `segmentation` into COCO's form.

    Args:
        segmentation: a COCO `segmentation`, or anything else.
        size_hw: (height, width) of the image in pixels.

    Returns:
        The mask in COCO's form; the segmentation itself if it has this form, or none that can be turned into it.
    """
    form = recognize_mask_form(segmentation, size_hw)
    return segmentation if form is None or form.segmentation is None else form.segmentation


def _recognize_numbers(numbers: list[Any], size_hw: tuple[int, int]) -> MaskForm | None:
    rle = {"size": [*size_hw], "counts": numbers}
    is_polygon = not find_mask_fault([numbers], size_hw) and _is_near(numbers, size_hw)
    if not find_mask_fault(rle, size_hw):
        return MaskForm(EITHER) if is_polygon else MaskForm(COUNTS, rle)
    return MaskForm(FLAT, [numbers]) if is_polygon else None


def _is_near(numbers: list[Any], size_hw: tuple[int, int]) -> bool:
    """Whether no point is further from the image than its own width and height."""
    points: NDArray[np.float64] = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    extent = np.array(size_hw[::-1])
    return bool((points >= -extent).all() and (points <= 2 * extent).all())


def _collect_polygons(value: Any, join_points: bool, depth: int = MAX_LISTS) -> list[list[Any]] | None:
    """The innermost lists, with three or more points [x, y] joined to a polygon; None if one is not of numbers."""
    if not isinstance(value, list) or not depth:
        return None
    if value and all_finite(value):
        return [value]
    polygons: list[list[Any]] = []
    for item in value:
        inner = _collect_polygons(item, join_points, depth - 1)
        if inner is None:
            return None
        polygons += inner
    are_points = 2 * len(polygons) >= MIN_POLYGON_NUMBERS and {*map(len, polygons)} == {2}
    return [[number for point in polygons for number in point]] if join_points and are_points else polygons
