"""Area and box of every segment of a map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.structures.id_runs import IdRuns
from segkit.structures.panoptic import VOID


class Extent(NamedTuple):
    """area_px: pixels of the segment. bbox_xywh: its tight box, pixels."""

    area_px: int
    bbox_xywh: tuple[int, int, int, int]


def extents(segment_ids: NDArray[np.int32]) -> dict[int, Extent]:
    """Area and tight box of every segment of an (H, W) map but void, by segment_id, ascending; empty for a void map."""
    return extents_of_runs(IdRuns.of_map(segment_ids))


def extents_of_runs(runs: IdRuns) -> dict[int, Extent]:
    """The same of runs: segments are compact, so that there are far fewer runs than pixels."""
    if not len(runs.ids):
        return {}
    order = np.argsort(runs.ids, kind="stable")
    run_ids, lengths = runs.ids[order], runs.lengths()[order]
    rows, lefts = np.divmod(runs.starts[order], runs.size_hw[1])
    groups = np.flatnonzero(np.diff(run_ids.astype(np.int64), prepend=-(2**32)))
    left, top = np.minimum.reduceat(lefts, groups), np.minimum.reduceat(rows, groups)
    width = np.maximum.reduceat(lefts + lengths, groups) - left
    height = np.maximum.reduceat(rows, groups) + 1 - top
    columns = (run_ids[groups], np.add.reduceat(lengths, groups), left, top, width, height)
    table = np.stack(columns, axis=1).tolist()
    return {i: Extent(area, (x, y, w, h)) for i, area, x, y, w, h in table if i != VOID}
