"""Names of segments, written where they hide least: inside of their segment, or beside it if it is small."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.report.palette import Color
from segkit.report.rendering import draw_ink, find_largest_box, render_text

MIN_TEXT_PX = 10
TEXT_SHARES = (0.026, 0.037)  # of the shorter side of the image: smallest and largest text
MAX_PER_CLASS = 8  # of many instances of a class, the largest have names; if there is no other class, one has
THING_COST, STUFF_COST = 0.8, 0.45  # a name that would cost more is left out
STUFF_WEIGHT = 0.3  # of hidden stuff, compared with a hidden thing
SHORTER_COST = 0.25  # of a text that leaves the score out
NAMED_SHARE = 0.5  # of the text's size: the side of the smallest square segment that has a name
OVER_COST, BESIDE_COST = 0.2, 0.35  # of a name that is not inside of its segment: partly, not at all
GAP_PX = 2  # between names
OVER_ROWS = (0.5, 0.35, 0.65, 0.2, 0.8)  # of a segment's height: where a name may be written over it
PLATE_TINT, PLATE_ALPHA = 0.25, 0.7  # the plate under the name: share of the segment's colour; opacity
WHITE = (255, 255, 255)
Window: TypeAlias = tuple[slice, slice]  # rows, columns
Box: TypeAlias = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class Label:
    """The name of one segment.

    Attributes:
        texts: What may be written, the longest first and the class last; empty for a segment without name.
        color: RGB of the segment.
        isthing: Whether the segment is a thing.
        window: Rows and columns of the segment's box.
    """

    texts: tuple[str, ...]
    color: Color
    isthing: bool
    window: Window


class Place(NamedTuple):
    """Where a name is written.

    Attributes:
        number: Number of the segment.
        text: The name.
        size_px: Size of the text.
        box: Left, top, width and height of the plate under it, pixels.
    """

    number: int
    text: str
    size_px: int
    box: Box


def draw_labels(canvas: NDArray[np.uint8], numbers: NDArray[np.int32], labels: Sequence[Label]) -> None:
    """Write the names of segments into an image, in place.

    Args:
        canvas: (H, W, 3) uint8 RGB.
        numbers: (H, W) int32, number of each pixel's segment, 0 for none.
        labels: The labels of the segments 1, 2, ...
    """
    for place in place_labels(numbers, labels):
        left, top, width, height = place.box
        plate = canvas[top : top + height, left : left + width]
        tint = np.array(labels[place.number - 1].color) * PLATE_TINT
        plate[:] = np.rint(plate * (1 - PLATE_ALPHA) + tint * PLATE_ALPHA).astype(np.uint8)
        ink = render_text(place.text, place.size_px)
        draw_ink(canvas, ink, left + (width - ink.shape[1]) // 2, top + (height - ink.shape[0]) // 2, WHITE)


def place_labels(numbers: NDArray[np.int32], labels: Sequence[Label]) -> list[Place]:
    """Find the places of the names.

    Small things come first, then large ones, then stuff from small to large; a name takes no place of an earlier one.
    It is written inside of its segment if it leaves enough of it to see; otherwise beside it, if that hides little of
    other segments. A name without such a place is left out.

    Args:
        numbers: As `draw_labels` takes it.
        labels: As `draw_labels` takes it.

    Returns:
        The places in this order.
    """
    areas_px = np.bincount(numbers.reshape(-1), minlength=len(labels) + 1)
    board = _Board(numbers, labels, areas_px)
    return [place for number in _order(labels, areas_px) if (place := board.place(number, labels[number - 1]))]


def _order(labels: Sequence[Label], areas_px: NDArray[np.int64]) -> list[int]:
    by_class = defaultdict[str, list[int]](list)
    for number in np.argsort(-areas_px[1:], kind="stable") + 1:
        if areas_px[number] and any(map(str.strip, labels[number - 1].texts)):
            by_class[labels[number - 1].texts[-1]].append(int(number))
    only_class = len(by_class) == 1
    named = [
        number
        for numbers in by_class.values()
        for number in numbers[: 1 if only_class and len(numbers) > MAX_PER_CLASS else MAX_PER_CLASS]
    ]
    return sorted(named, key=lambda number: (not labels[number - 1].isthing, areas_px[number], number))


class _Board:
    """The image while names are placed in it."""

    def __init__(self, numbers: NDArray[np.int32], labels: Sequence[Label], areas_px: NDArray[np.int64]) -> None:
        shorter = min(numbers.shape)
        self.numbers, self.areas_px = numbers, areas_px
        self.smallest = max(MIN_TEXT_PX, round(TEXT_SHARES[0] * shorter))
        self.largest = max(MIN_TEXT_PX + 2, round(TEXT_SHARES[1] * shorter))
        self.is_free = np.ones(numbers.shape, dtype=np.bool_)
        weights = np.array([0.0, *(1.0 if label.isthing else STUFF_WEIGHT for label in labels)])
        importance = weights / np.maximum(areas_px, 1)
        self.importance = cv2.integral(importance[numbers])

    def place(self, number: int, label: Label) -> Place | None:
        """Place one name and mark its pixels as taken."""
        if self.areas_px[number] < (NAMED_SHARE * self.smallest) ** 2:
            return None
        mask = self.numbers[label.window] == number
        candidates = [
            (cost + dropped * SHORTER_COST, place)
            for dropped, text in enumerate(label.texts)
            for cost, place in (
                *self._find_inside(number, label, mask, text),
                *self._list_near(number, label, mask, text),
            )
        ]
        cost, place = min(candidates, key=lambda candidate: candidate[0], default=(np.inf, None))
        if place is None or cost > (THING_COST if label.isthing else STUFF_COST):
            return None
        left, top, width, height = place.box
        rows, columns = (
            slice(max(top - GAP_PX, 0), top + height + GAP_PX),
            slice(max(left - GAP_PX, 0), left + width + GAP_PX),
        )
        self.is_free[rows, columns] = False
        return place

    def _find_inside(
        self, number: int, label: Label, mask: NDArray[np.bool_], text: str
    ) -> Iterator[tuple[float, Place]]:
        """The text at the largest size that fits into free pixels of the segment; it costs the share that it hides."""
        width, height = _measure(text, self.largest)
        left, top, free_width, free_height = find_largest_box(mask & self.is_free[label.window], width / height)
        for size in range(self.largest, self.smallest - 1, -1):
            width, height = _measure(text, size)
            if width <= free_width and height <= free_height:
                left += (free_width - width) // 2 + label.window[1].start
                top += (free_height - height) // 2 + label.window[0].start
                yield width * height / self.areas_px[number], Place(number, text, size, (left, top, width, height))
                return

    def _list_near(
        self, number: int, label: Label, mask: NDArray[np.bool_], text: str
    ) -> Iterator[tuple[float, Place]]:
        """Places of the smallest text over a segment and around it; they cost what they hide of all segments."""
        image_height, image_width = self.numbers.shape
        width, height = _measure(text, self.smallest)
        over, around = _list_corners(label.window, mask, width, height)
        for extra_cost, corners in ((OVER_COST, over), (BESIDE_COST, around)):
            for wanted_left, top in corners:
                left = min(max(wanted_left, 0), image_width - width)
                if not (left >= 0 <= top <= image_height - height and abs(left - wanted_left) < width // 2):
                    continue
                pixels = slice(top, top + height), slice(left, left + width)
                if self.is_free[pixels].all():
                    own = np.count_nonzero(self.numbers[pixels] == number) / self.areas_px[number]
                    cost = max(own, self._sum_hidden(left, top, width, height)) + extra_cost
                    yield cost, Place(number, text, self.smallest, (left, top, width, height))

    def _sum_hidden(self, left: int, top: int, width: int, height: int) -> float:
        """Sum over the segments: the share that the plate hides, weighted."""
        sums = self.importance
        right, bottom = left + width, top + height
        return float(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


def _list_corners(
    window: Window, mask: NDArray[np.bool_], width: int, height: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Left and top of plates of this size: over the middle of some rows of the segment, and around its box."""
    rows, columns = window
    over = []
    for share in OVER_ROWS:
        row = int(share * (len(mask) - 1))
        inside = np.flatnonzero(mask[row])
        if len(inside):
            over.append((columns.start + int(inside[len(inside) // 2]) - width // 2, rows.start + row - height // 2))
    lefts = (columns.start + columns.stop - width) // 2, columns.start, columns.stop - width
    around = [(left, top) for left in lefts for top in (rows.start - height - 1, rows.stop + 1)]
    middle = (rows.start + rows.stop - height) // 2
    return over, [*around, (columns.stop + 1, middle), (columns.start - width - 1, middle)]


@lru_cache(maxsize=4096)
def _measure(text: str, size_px: int) -> tuple[int, int]:
    """Width and height of the plate under a text."""
    height, width = render_text(text, size_px).shape
    pad = max(1, height // 6)
    return width + 4 * pad, height + 2 * pad
