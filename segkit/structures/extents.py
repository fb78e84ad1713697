"""Area and box of every segment of a map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.structures.panoptic import VOID


class Extent(NamedTuple):
    """area_px: pixels of the segment. bbox_xywh: its tight box, pixels."""

    area_px: int
    bbox_xywh: tuple[int, int, int, int]


def extents(segment_ids: NDArray[np.int32]) -> dict[int, Extent]:
    """Area and tight box of every segment of an (H, W) map but void, by segment_id, ascending; empty for a void map.

    Counts runs of equal ids along the rows: segments are compact, so that there are far fewer runs than pixels.
    """
    if not segment_ids.size:
        return {}
    first = np.ones(segment_ids.shape, dtype=np.bool_)
    np.not_equal(segment_ids[:, 1:], segment_ids[:, :-1], out=first[:, 1:])
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=segment_ids.size)
    run_ids = segment_ids.reshape(-1)[starts]
    order = np.argsort(run_ids, kind="stable")
    run_ids, lengths = run_ids[order], lengths[order]
    rows, lefts = np.divmod(starts[order], segment_ids.shape[1])
    groups = np.flatnonzero(np.diff(run_ids, prepend=run_ids[0] - 1))
    left, top = np.minimum.reduceat(lefts, groups), np.minimum.reduceat(rows, groups)
    width = np.maximum.reduceat(lefts + lengths, groups) - left
    height = np.maximum.reduceat(rows, groups) + 1 - top
    columns = (run_ids[groups], np.add.reduceat(lengths, groups), left, top, width, height)
    table = np.stack(columns, axis=1).tolist()
    return {i: Extent(area, (x, y, w, h)) for i, area, x, y, w, h in table if i != VOID}
