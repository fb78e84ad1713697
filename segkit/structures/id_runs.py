"""IdRuns: a map of ids as runs of equal ids, some thousand instead of some hundred thousand pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.structures.compiled import COMPILED, compiled

WORD = 8  # flags looked at together


@dataclass(frozen=True)
class IdRuns:
    """size_hw: (height, width) in pixels. starts: (R,) int32, ascending from 0, the pixel in reading order at which
    each run begins; ids: (R,) int32, its id. Every row begins a run. R is 0 for a map without pixels."""

    size_hw: tuple[int, int]
    starts: NDArray[np.int32]
    ids: NDArray[np.int32]

    @classmethod
    def of_map(cls, segment_ids: NDArray[np.int32]) -> IdRuns:
        """The runs of an (H, W) map of ids in the range of int32."""
        begins = np.ones(segment_ids.shape, dtype=np.bool_)
        np.not_equal(segment_ids[:, 1:], segment_ids[:, :-1], out=begins[:, 1:])
        flags = begins.reshape(-1)
        starts = _places(flags) if COMPILED else np.flatnonzero(flags).astype(np.int32)
        height, width = segment_ids.shape
        return cls((height, width), starts, segment_ids.reshape(-1)[starts].astype(np.int32, copy=False))

    def lengths(self) -> NDArray[np.int32]:
        """(R,) pixels of each run."""
        return np.diff(self.starts, append=np.int32(self.size_hw[0] * self.size_hw[1]))

    def areas_px(self) -> dict[int, int]:
        """Pixels of every id, ascending by id."""
        ids, places = np.unique(self.ids, return_inverse=True)
        pixels = np.bincount(places, weights=self.lengths(), minlength=len(ids)).astype(np.int64)
        return dict(zip(ids.tolist(), pixels.tolist(), strict=True))

    def to_map(self) -> NDArray[np.int32]:
        """The (H, W) int32 map."""
        return np.repeat(self.ids, self.lengths()).reshape(self.size_hw)


@compiled
def _places(flags: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Where the flags are, most words of them being empty."""
    words = flags[: flags.size // WORD * WORD].view(np.uint64)
    places = np.empty(flags.size, dtype=np.int32)  # only what is written to takes memory
    found = 0
    for index in range(words.size):
        if words[index]:
            for place in range(WORD * index, WORD * index + WORD):
                places[found] = place
                found += flags[place]
    for place in range(WORD * words.size, flags.size):
        places[found] = place
        found += flags[place]
    kept: NDArray[np.int32] = places[:found].copy()
    return kept
