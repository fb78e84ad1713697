"""Compressed COCO RLE of many crops at once, byte for byte that of pycocotools (maskApi.c: rleEncode, rleToString)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGIT_BITS = 5
DIGIT, SIGN, MORE, FIRST_LETTER = (
    0x1F,
    0x10,
    0x20,
    48,
)  # of a digit: its bits, its highest, that one follows, its letter
RUNS_AT_ONCE = 2**18  # of masks whose text is made together, which takes some 200 bytes a run
FIRST_DIFFERENCE = 3  # from this count on, a count is written as the difference from the one before the last


def encode_crops(
    crops: Sequence[NDArray[np.bool_]], corners_xy: Sequence[Sequence[int]], size_hw: tuple[int, int]
) -> list[dict[str, Any]]:
    """Encode crops of masks as the RLEs of the whole masks. Only the crops are looked at.

    Args:
        crops: (h, w) bool each, inside of the image.
        corners_xy: (left, top) of each crop in the image, pixels.
        size_hw: (height, width) of the image, pixels.

    Returns:
        Compressed COCO RLE `{"size": [H, W], "counts": str}` of each mask.
    """
    texts: list[str] = []
    waiting: list[NDArray[np.int64]] = []
    runs = 0
    for crop, (left, top) in zip(crops, corners_xy, strict=True):
        waiting.append(_find_ends(crop, left, top, size_hw))
        runs += len(waiting[-1])
        if runs >= RUNS_AT_ONCE:
            texts += _to_texts(waiting)
            waiting, runs = [], 0
    texts += _to_texts(waiting)
    return [{"size": [*size_hw], "counts": text} for text in texts]


def _find_ends(crop: NDArray[np.bool_], left: int, top: int, size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Where the runs of 0, 1, 0, ... down the columns of the whole mask end, in pixels from its start."""
    image_height, image_width = size_hw
    height, width = crop.shape
    is_end = np.zeros((height + 1, width), dtype=np.bool_)  # of the run above a pixel; runs end with the crop too
    if crop.size:
        is_end[0], is_end[-1] = crop[0], crop[-1]
        np.not_equal(crop[1:], crop[:-1], out=is_end[1:-1])
    row, column = np.divmod(np.flatnonzero(is_end), max(width, 1))
    total = image_height * image_width
    ends = np.empty(len(row) + 1, dtype=np.int64)
    ends[:-1] = np.sort(column * image_height + row)
    ends[:-1] += left * image_height + top
    ends[-1] = total
    if height == image_height:  # the run of a column may go on in the next
        inner = np.flatnonzero(ends[1:-2:2] == ends[2:-1:2]) * 2 + 1
        ends = np.delete(ends, [*inner, *(inner + 1)])
    return ends[:-1] if len(ends) > 1 and ends[-2] == total else ends


def _to_texts(ends: Sequence[NDArray[np.int64]]) -> list[str]:
    """The lengths of the runs of each mask as text: digits of 5 bits, the lowest first."""
    if not ends:
        return []
    lengths = np.array([len(each) for each in ends])
    starts = np.cumsum(lengths) - lengths
    joined = np.concatenate(ends)
    values = np.diff(joined, prepend=0)
    values[starts] = joined[starts]
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    is_difference = np.flatnonzero(place >= FIRST_DIFFERENCE)
    rest = values.copy()
    rest[is_difference] -= values[is_difference - 2]
    letters, is_used = [], []
    goes_on = np.ones(len(rest), dtype=np.bool_)
    while goes_on.any():
        digit = rest & DIGIT
        rest >>= DIGIT_BITS
        is_used.append(goes_on)
        more = rest != np.where(digit & SIGN, -1, 0)
        letters.append((digit | np.where(more, MORE, 0)) + FIRST_LETTER)
        goes_on = goes_on & more
    used = np.stack(is_used, axis=1)
    text = np.stack(letters, axis=1)[used].astype(np.uint8).tobytes().decode("ascii")
    stops = np.cumsum(np.add.reduceat(used.sum(axis=1), starts)).tolist()
    return [text[begin:end] for begin, end in zip([0, *stops], stops, strict=False)]
