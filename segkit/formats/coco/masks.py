"""Check COCO's `segmentation`: pycocotools decodes wrong run lengths to noise, and crashes on wrong polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segkit.formats.coco.run_lengths import compute_areas
from segkit.utils.json_fields import all_finite

MIN_POLYGON_NUMBERS = 6  # three points; pycocotools takes four numbers for a box
SLIVER_NUMBERS = (0, 2, 4)  # no point, one, two
MAX_COORDINATE = 1e6  # pixels
RELATIVE = "the coordinates are in 0..1, expected pixels: are they shares of the image's width and height?"
MAX_OUTLINE_PX = 4e6  # of a polygon: pycocotools needs about 100 bytes per pixel of outline, and crashes without them


def drop_slivers(segmentation: Any) -> Any:
    """Drop polygons of fewer than three points, which have no area.

    COCO holds some. pycocotools takes a first polygon of two points for a box, and then all other polygons too.

    Args:
        segmentation: a COCO `segmentation`, or anything else.

    Returns:
        The other polygons; what is not a list is returned as it is.
    """
    if not isinstance(segmentation, list):
        return segmentation
    return [p for p in segmentation if not (isinstance(p, list) and len(p) in SLIVER_NUMBERS)]


def is_too_long(polygon: Sequence[float]) -> bool:
    """Check the length of an outline as pycocotools draws it: a step counts the larger of its width and height.

    Args:
        polygon: x, y, x, y, ... in pixels, finite numbers.

    Returns:
        Whether the outline is longer than `MAX_OUTLINE_PX`.
    """
    if len(polygon) * max(max(polygon), -min(polygon)) <= MAX_OUTLINE_PX:  # no step is longer than twice that
        return False
    points_xy = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    steps = np.abs(points_xy - np.roll(points_xy, 1, axis=0)).max(axis=1)
    return bool(steps.sum() > MAX_OUTLINE_PX)


def are_relative(polygons: Sequence[Sequence[float]]) -> bool:
    """Recognize coordinates that are shares of the image, not pixels.

    Args:
        polygons: lists of numbers.

    Returns:
        Whether all numbers are in 0..1, and one is between; False without polygons.
    """
    are_in_range = all(0 <= number <= 1 for polygon in polygons for number in polygon)
    return are_in_range and any(0 < number < 1 for polygon in polygons for number in polygon)


def find_mask_fault(segmentation: object, size_hw: tuple[int, int] | None) -> str:
    """Say what is wrong with a COCO `segmentation`.

    Valid are polygons of three or more points with outlines up to `MAX_OUTLINE_PX`, and run lengths, compressed or
    not, that cover the image.

    Args:
        segmentation: polygons, RLE, or anything else.
        size_hw: (height, width) of the image in pixels; None takes the `size` of the RLE.

    Returns:
        What was expected and what came; "" if the segmentation is valid.
    """
    if isinstance(segmentation, list):
        return _find_polygon_fault(segmentation)
    if not isinstance(segmentation, dict):
        return f"expected polygons or RLE, got {type(segmentation).__name__}"
    size: Any = segmentation.get("size")
    if not _is_size(size) or (size_hw is not None and tuple(size) != size_hw):
        expected = "[height, width]" if size_hw is None else str([*size_hw])
        return f"expected RLE with a size of {expected}, got {size!r}"
    try:
        total_px = _sum_runs(segmentation.get("counts"))
    except ValueError as error:
        return f"expected RLE counts to be run lengths, but {error}"
    if total_px != size[0] * size[1]:
        return f"expected RLE counts to add up to {size[0] * size[1]} pixels, got {total_px}"
    return ""


def _find_polygon_fault(polygons: list[Any]) -> str:
    if not polygons:
        return "expected RLE or polygons of three or more points, got none"
    for polygon in polygons:
        if not isinstance(polygon, list) or not all_finite(polygon):
            return "expected every polygon to be a list of x and y in pixels, got something else"
        if not all_finite(polygon, MAX_COORDINATE):
            return f"expected polygons within {MAX_COORDINATE:g} pixels, got a corner further away"
        if len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            return f"expected three or more pairs of x and y in a polygon, got {len(polygon)} numbers"
        if is_too_long(polygon):
            return f"expected an outline of at most {MAX_OUTLINE_PX:g} pixels in a polygon, got a longer one"
    return ""


def _is_size(size: object) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(length) is int and length > 0 for length in size)


def _sum_runs(counts: Any) -> int:
    """Pixels of all runs; ValueError if these are not run lengths."""
    if isinstance(counts, str):
        return int(compute_areas([counts]).total_px[0])
    is_list = isinstance(counts, list) and {*map(type, counts)} <= {int}
    if not is_list or min(counts, default=0) < 0 or max(counts, default=0) > np.iinfo(np.int32).max:
        raise ValueError("they are neither text nor a list of integers from 0")
    return sum(counts)
