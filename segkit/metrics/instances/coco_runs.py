"""Run lengths of many compressed COCO RLEs at once: what they cover, and whether they are sound."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.utils.compiled import COMPILED, compiled

BITS_PER_CHAR = 5  # pycocotools' rleToString: 5 bits of a run per character, bit 5 = more follow, characters from "0"
MORE = 1 << BITS_PER_CHAR
SIGN = 1 << (BITS_PER_CHAR - 1)
FIRST_CHAR = ord("0")
MAX_CHARS_PER_RUN = 7  # what a 32-bit run can need
CHARS_AT_ONCE = 1 << 16  # what the arrays below take then fits into a processor's cache


class Covered(NamedTuple):
    """Per RLE: `total_px`, the sum of all runs, and `area_px`, the sum of those of the mask; (N,) int64."""

    total_px: NDArray[np.int64]
    area_px: NDArray[np.int64]


def covered(counts: Sequence[str]) -> Covered:
    """What compressed counts (pycocotools maskApi.c, rleFrString) cover; ValueError where one of them is malformed.

    Where the runs of two masks end at different pixels, pycocotools' rleIou never returns: hence the total.
    """
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    stops = np.cumsum(lengths)
    if not lengths.all():
        raise ValueError("counts are empty")
    # Groups of whole RLEs; a stop is a group's last when the next one lies in another stretch of CHARS_AT_ONCE.
    cuts = [0, *(np.flatnonzero(np.diff(stops // CHARS_AT_ONCE)) + 1).tolist(), len(counts)]
    parts = [Covered(lengths[:0], lengths[:0])]
    for start, stop in pairwise(cuts):
        if start < stop:
            parts.append(_covered("".join(counts[start:stop]), lengths[start:stop]))
    return Covered(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _covered(counts: str, lengths: NDArray[np.int64]) -> Covered:
    chars = np.frombuffer(counts.encode("ascii"), dtype=np.uint8) - np.uint8(FIRST_CHAR)  # wraps around
    stops = np.cumsum(lengths)
    if chars.max() >= 2 * MORE or (chars[stops - 1] & MORE).any():
        raise ValueError("counts are cut off or hold other characters than RLE's")
    if not COMPILED:
        return _by_arrays(chars, stops)
    total_px, area_px = np.empty_like(stops), np.empty_like(stops)
    if _by_loop(chars, stops, total_px, area_px):
        return Covered(total_px, area_px)
    return _by_arrays(chars, stops)  # which words the fault


@compiled
def _by_loop(
    chars: NDArray[np.uint8], stops: NDArray[np.int64], total_px: NDArray[np.int64], area_px: NDArray[np.int64]
) -> bool:
    """Fills the last two; False where a run is negative or beyond 32 bits."""
    start = 0
    for index in range(len(stops)):
        place, of_rest, of_mask, rest_px, mask_px, value, shift = 0, 0, 0, 0, 0, 0, 0
        for at in range(start, stops[index]):
            char = np.int64(chars[at])
            value |= (char & 31) << shift
            shift += 5
            if char & 32:
                continue
            if shift > 35:
                return False
            if char & 16:
                value -= 1 << shift
            # From the fourth on, a run is stored as the difference from the one of its kind before it.
            if place & 1:
                of_mask += value
                mask_px += of_mask
            else:
                of_rest = value if place <= 2 else of_rest + value
                rest_px += of_rest
            if of_mask < 0 or of_rest < 0:
                return False
            place, value, shift = place + 1, 0, 0
        total_px[index], area_px[index] = rest_px + mask_px, mask_px
        start = stops[index]
    return True


def _by_arrays(chars: NDArray[np.uint8], stops: NDArray[np.int64]) -> Covered:
    last = np.flatnonzero(chars < MORE)
    begins = np.concatenate([[0], np.searchsorted(last, stops)])
    runs, numbers = _decoded(chars, last), np.diff(begins)
    place = np.arange(len(last)) - np.repeat(begins[:-1], numbers)
    of_mask, of_rest = place & 1 == 1, (place & 1 == 0) & (place > 0)
    area_px, lowest = _sum_of_sums(runs[of_mask], numbers // 2)
    rest_px, lowest_rest = _sum_of_sums(runs[of_rest], (numbers - 1) // 2)
    before = runs[begins[:-1]]
    if min(lowest, lowest_rest, before.min()) < 0:
        raise ValueError("counts hold a negative run")
    return Covered(before + area_px + rest_px, area_px)


def _decoded(chars: NDArray[np.uint8], last: NDArray[np.intp]) -> NDArray[np.int64]:
    """The numbers stored, the last character of each being at `last`: little-endian groups of five bits, signed."""
    width = np.diff(last, prepend=-1)
    if width.max() > MAX_CHARS_PER_RUN:
        raise ValueError("counts hold a run beyond 32 bits")
    end = chars[last]
    values = (end & (SIGN - 1)).astype(np.int64) - (end & SIGN)
    longer = np.flatnonzero(width > 1)
    for back in range(1, int(width.max())):
        values[longer] = (values[longer] << BITS_PER_CHAR) + (chars[last[longer] - back] & (MORE - 1))
        longer = longer[width[longer] > back + 1]
    return values


def _sum_of_sums(steps: NDArray[np.int64], numbers: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Of groups of so many steps: the sum of their running sums, (N,), and the lowest running sum of all."""
    sums = np.concatenate([[0], np.cumsum(steps)])
    stops = np.cumsum(numbers)
    starts = stops - numbers
    levels = sums[1:] - np.repeat(sums[starts], numbers)
    totals = np.concatenate([[0], np.cumsum(levels)])
    return totals[stops] - totals[starts], int(levels.min(initial=0))
