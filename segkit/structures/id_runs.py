"""IdRuns: a map of ids as runs of equal ids, some thousand instead of some hundred thousand pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class IdRuns:
    """size_hw: (height, width) in pixels. starts: (R,) int32, ascending from 0, the pixel in reading order at which
    each run begins; ids: (R,) int32, its id; neighbours may be equal. R is 0 for a map without pixels."""

    size_hw: tuple[int, int]
    starts: NDArray[np.int32]
    ids: NDArray[np.int32]

    @classmethod
    def of_map(cls, segment_ids: NDArray[np.int32]) -> IdRuns:
        """The runs of an (H, W) map of ids in the range of int32."""
        row = segment_ids.ravel()
        begins = np.ones(row.size, dtype=np.bool_)
        np.not_equal(row[1:], row[:-1], out=begins[1:])
        starts = np.flatnonzero(begins).astype(np.int32)
        height, width = segment_ids.shape
        return cls((height, width), starts, row[starts].astype(np.int32, copy=False))

    def lengths(self) -> NDArray[np.int32]:
        """(R,) pixels of each run."""
        return np.diff(self.starts, append=np.int32(self.size_hw[0] * self.size_hw[1]))

    def to_map(self) -> NDArray[np.int32]:
        """The (H, W) int32 map."""
        return np.repeat(self.ids, self.lengths()).reshape(self.size_hw)
