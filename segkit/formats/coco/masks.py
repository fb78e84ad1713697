"""Is a COCO `segmentation` sound? pycocotools itself decodes bad run lengths to noise, and bad polygons to a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.json_fields import all_finite

MIN_POLYGON_NUMBERS = 6  # three points
SLIVER_NUMBERS = (0, 2, 4)  # no point, one, two
MAX_COORDINATE = 1e6  # pixels
MAX_OUTLINE_PX = 4e6  # of a polygon: pycocotools needs some 100 bytes for each pixel of it, and crashes without them
FIRST_CHARACTER = ord("0")  # pycocotools maskApi.c, rleToString: six bits in a character, the low five of them data
MORE, SIGN, DATA_BITS = 0x20, 0x10, 5
MAX_CHARACTERS = 12  # of one number: 60 bits


def drop_slivers(segmentation: Any) -> Any:
    """Polygons without those of fewer than three points, which have no area; anything else as it is.

    COCO holds some. Left in, pycocotools takes one of two points for a box, and with it all that follow.
    """
    if not isinstance(segmentation, list):
        return segmentation
    return [p for p in segmentation if not (isinstance(p, list) and len(p) in SLIVER_NUMBERS)]


def is_too_long(polygon: Sequence[float]) -> bool:
    """Whether the outline of a polygon, x and y in turn, all finite, is longer than `MAX_OUTLINE_PX`; a step from point
    to point counts as pycocotools draws it, the larger of its width and its height."""
    if len(polygon) * max(max(polygon), -min(polygon)) <= MAX_OUTLINE_PX:  # no step is longer than twice that
        return False
    points_xy = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    steps = np.abs(points_xy - np.roll(points_xy, 1, axis=0)).max(axis=1)
    return bool(steps.sum() > MAX_OUTLINE_PX)


def find_mask_fault(segmentation: object, size_hw: tuple[int, int] | None) -> str:
    """What is wrong with a COCO `segmentation` of an image of `size_hw` pixels; "" where it is sound.

    Sound are polygons of three points or more, no outline longer than `MAX_OUTLINE_PX`, and run lengths, compressed or
    not, that fill an image of `size_hw`; without `size_hw`, an image of their own `size`.
    """
    if isinstance(segmentation, list):
        return _fault_of_polygons(segmentation)
    if not isinstance(segmentation, dict):
        return f"expected polygons or RLE, got {type(segmentation).__name__}"
    size: Any = segmentation.get("size")
    if not _is_size(size) or (size_hw is not None and tuple(size) != size_hw):
        expected = "[height, width]" if size_hw is None else str([*size_hw])
        return f"expected RLE with a size of {expected}, got {size!r}"
    runs = _runs(segmentation.get("counts"))
    if runs is None or (runs < 0).any():
        return "expected RLE counts to be run lengths, got something else"
    if runs.sum() != size[0] * size[1]:
        return f"expected RLE counts to add up to {size[0] * size[1]} pixels, got {runs.sum()}"
    return ""


def _fault_of_polygons(polygons: list[Any]) -> str:
    if not polygons:
        return "expected RLE or polygons of three or more points, got none"
    for polygon in polygons:
        if not isinstance(polygon, list) or not all_finite(polygon, MAX_COORDINATE):
            return "expected every polygon to be a list of x and y in pixels, got something else"
        if len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            return f"expected three or more pairs of x and y in a polygon, got {len(polygon)} numbers"
        if is_too_long(polygon):
            return f"expected an outline of at most {MAX_OUTLINE_PX:g} pixels in a polygon, got a longer one"
    return ""


def _is_size(size: object) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(length) is int and length > 0 for length in size)


def _runs(counts: object) -> NDArray[np.int64] | None:
    if isinstance(counts, list):
        whole = {*map(type, counts)} <= {int} and all_finite(counts, np.iinfo(np.int32).max)
        return np.array(counts, dtype=np.int64) if whole else None
    if isinstance(counts, str) and counts.isascii():
        return _decompress(counts.encode("ascii"))
    return None


def _decompress(counts: bytes) -> NDArray[np.int64] | None:
    # maskApi.c, rleFrString: little-endian groups of five bits; from the fourth on, the difference to the last but one.
    characters = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - FIRST_CHARACTER
    if not len(characters) or characters.min() < 0 or characters.max() >= 2 * MORE or characters[-1] & MORE:
        return None
    ends = np.flatnonzero((characters & MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_CHARACTERS:
        return None
    shifts = DATA_BITS * (np.arange(len(characters)) - np.repeat(starts, lengths))
    runs: NDArray[np.int64] = np.add.reduceat((characters & (MORE - 1)) << shifts, starts)
    runs -= np.where(characters[ends] & SIGN, np.int64(1) << (DATA_BITS * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
