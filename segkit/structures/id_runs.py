"""IdRuns: a map of ids as runs of equal ids, some thousand instead of some hundred thousand pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.utils.compiled import COMPILED, compiled

VOID = 0  # segment_id of unlabelled pixels (panopticapi evaluation.py: VOID = 0)
WORD = 8  # flags looked at together
BLOCK_PX = 4096  # pixels compared, then looked through, while their flags lie in the nearest cache
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, of mixed bits: the upper half of a product depends on all bits of a key
FEW_SLOTS = 1024  # of the hash table, for images as they are: a table that lies in the nearest cache
UPPER_HALF = np.uint64(32)


class Extent(NamedTuple):
    """Area and box of one segment.

    Attributes:
        area_px: Pixels of the segment.
        bbox_xywh: Its tight box (left, top, width, height), pixels.
    """

    area_px: int
    bbox_xywh: tuple[int, int, int, int]


@dataclass(frozen=True)
class IdRuns:
    """size_hw: (height, width) in pixels. starts: (R,) int32, ascending from 0, the pixel in reading order at which
    each run begins; ids: (R,) int32, its id. Every row begins a run. R is 0 for a map without pixels."""

    size_hw: tuple[int, int]
    starts: NDArray[np.int32]
    ids: NDArray[np.int32]

    @classmethod
    def from_map(cls, segment_ids: NDArray[np.int32]) -> IdRuns:
        """The runs of an (H, W) map of ids in the range of int32."""
        height, width = segment_ids.shape
        if COMPILED:
            starts = _starts_of(np.ascontiguousarray(segment_ids))
        else:
            begins = np.ones(segment_ids.shape, dtype=np.bool_)
            np.not_equal(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
            starts = np.flatnonzero(begins).astype(np.int32)
        return cls((height, width), starts, segment_ids.reshape(-1)[starts].astype(np.int32, copy=False))

    def lengths(self) -> NDArray[np.int32]:
        """(R,) pixels of each run."""
        lengths = np.empty_like(self.starts)
        if len(lengths):
            np.subtract(self.starts[1:], self.starts[:-1], out=lengths[:-1])
            lengths[-1] = self.size_hw[0] * self.size_hw[1] - self.starts[-1]
        return lengths

    def areas_px(self) -> dict[int, int]:
        """Pixels of every id, ascending by id."""
        bits, pixels = sum_by_key(self.ids.view(np.uint32).astype(np.uint64), self.lengths())
        ids = bits.astype(np.uint32).view(np.int32)
        return dict(sorted(zip(ids.tolist(), pixels.tolist(), strict=True)))

    def extents(self) -> dict[int, Extent]:
        """Area and tight box of every segment except void, ascending by id.

        Returns:
            segment_id -> Extent; empty for a map that is all void.
        """
        if not len(self.ids):
            return {}
        order = np.argsort(self.ids, kind="stable")
        run_ids, lengths = self.ids[order], self.lengths()[order]
        rows, lefts = np.divmod(self.starts[order], self.size_hw[1])
        groups = np.flatnonzero(np.diff(run_ids.astype(np.int64), prepend=-(2**32)))
        left, top = np.minimum.reduceat(lefts, groups), np.minimum.reduceat(rows, groups)
        width = np.maximum.reduceat(lefts + lengths, groups) - left
        height = np.maximum.reduceat(rows, groups) + 1 - top
        columns = (run_ids[groups], np.add.reduceat(lengths, groups), left, top, width, height)
        table = np.stack(columns, axis=1).tolist()
        return {i: Extent(area, (x, y, w, h)) for i, area, x, y, w, h in table if i != VOID}

    def to_map(self) -> NDArray[np.int32]:
        """The (H, W) int32 map."""
        return np.repeat(self.ids, self.lengths()).reshape(self.size_hw)


def sum_by_key(keys: NDArray[np.uint64], lengths: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct keys, ascending, and for each the sum of its lengths; lengths are above 0."""
    if COMPILED:
        enough = 1 << int(2 * len(keys)).bit_length()
        table, totals = _hashed(keys, lengths, min(FEW_SLOTS, enough))
        if not len(totals):
            table, totals = _hashed(keys, lengths, enough)
        used = np.flatnonzero(totals)
        used = used[np.argsort(table[used])]
        return table[used], totals[used]
    distinct, places = np.unique(keys, return_inverse=True)
    totals = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(totals, places, lengths)
    return distinct, totals


@compiled
def _hashed(
    keys: NDArray[np.uint64], lengths: NDArray[np.int32], slots: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash table of `slots`, a power of two: key and sum of lengths, 0 where free; empty where it got half full."""
    table, totals = np.zeros(slots, dtype=np.uint64), np.zeros(slots, dtype=np.int64)
    used = 0
    for index in range(keys.size):
        key = keys[index]
        slot = np.int64(key * MIX >> UPPER_HALF) & (slots - 1)
        while totals[slot] and table[slot] != key:
            slot = (slot + 1) & (slots - 1)
        if totals[slot] == 0:
            used += 1
            if 2 * used > slots:
                return table[:0], totals[:0]
            table[slot] = key
        totals[slot] += lengths[index]
    return table, totals


@compiled
def _starts_of(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Block by block: flags where an id differs from the one before or a row begins, most words of them being empty."""
    row, width = ids.reshape(-1), ids.shape[1]
    flags = np.zeros(BLOCK_PX, dtype=np.uint8)
    words = flags.view(np.uint64)
    starts = np.empty(row.size + 1, dtype=np.int32)  # only what is written to takes memory
    found = 0
    for begin in range(0, row.size, BLOCK_PX):
        length = min(BLOCK_PX, row.size - begin)
        skipped = 1 if begin == 0 else 0  # the first pixel has none before it; it begins a row
        here, before = row[begin + skipped : begin + length], row[begin + skipped - 1 : begin + length - 1]
        for index in range(here.size):
            flags[skipped + index] = here[index] != before[index]
        flags[length:] = 0
        for row_start in range((begin + width - 1) // width * width, begin + length, width):
            flags[row_start - begin] = 1
        for word in range((length + WORD - 1) // WORD):
            if words[word]:
                for index in range(WORD * word, WORD * word + WORD):
                    starts[found] = begin + index
                    found += flags[index]  # written to anyway and counted if so: a branch would be mispredicted
    kept: NDArray[np.int32] = starts[:found].copy()
    return kept
