"""From who owns which pixel to a PanopticSegmentation: stuff in what is left, ids 1..N, areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.fates import Verdict, Verdicts
from segkit.structures import THING_CHANNEL, VOID, InstanceMasks, PanopticSegmentation, Segment


def thing_segment(segment_id: int, instances: InstanceMasks, row: int, area_px: int) -> Segment:
    """The segment of the instance at `row`."""
    class_id, score = int(instances.class_ids[row]), float(instances.scores[row])
    return Segment(segment_id, class_id, True, area_px, score=score, instance_id=row)


def fill_stuff(
    segment_ids: NDArray[np.int32],
    segments: Sequence[Segment],
    stuff_map: NDArray[np.integer],
    area_limit_px: float,
    verdicts: Verdicts | None,
    free: NDArray[np.bool_] | None = None,
) -> PanopticSegmentation:
    """Stuff where the map is void, one segment for each class by rising id, ids going on after those of `segments`.

    segment_ids: (H, W), written to. stuff_map: (H, W) stuff contiguous ids, 0 for things. free: where stuff may be
    (default: where segment_ids is void). A class with fewer free pixels than area_limit_px is left out and its pixels
    stay void; with a limit of 0 or below a class that is all taken makes an empty segment, as in Detectron2.
    """
    free = segment_ids == VOID if free is None else free
    free_px = np.bincount(stuff_map[free])
    segment_of = np.full(int(stuff_map.max(initial=0)) + 1, VOID, dtype=np.int32)
    listed = [*segments]
    for stuff_id in np.flatnonzero(np.bincount(stuff_map.ravel())).tolist():
        area_px = int(free_px[stuff_id]) if stuff_id < len(free_px) else 0
        if stuff_id == THING_CHANNEL:
            continue
        if area_px < area_limit_px:
            if verdicts is not None and area_px:
                verdicts.stuff[stuff_id] = Verdict("area", area_px, area_limit_px)
            continue
        segment_of[stuff_id] = len(listed) + 1
        listed.append(Segment(len(listed) + 1, stuff_id, False, area_px))
    np.copyto(segment_ids, segment_of[stuff_map], where=free)
    return PanopticSegmentation(segment_ids, tuple(listed))


def segments_of_owners(
    owners: NDArray[np.int32],
    order: Sequence[int],
    instances: InstanceMasks,
) -> tuple[NDArray[np.int32], list[Segment]]:
    """The map and the segments of instances that own pixels.

    owners: (H, W) int32, the row of the instance that owns each pixel, negative where none does. order: rows, best
    first; rows outside it own nothing. Returns a map of ids 1..N in that order, VOID elsewhere; a row without a pixel
    gets none.
    """
    areas_px = np.bincount(owners[owners >= 0], minlength=len(instances))
    segment_of = np.full(len(instances) + 1, VOID, dtype=np.int32)  # the last is for "none"
    segments: list[Segment] = []
    for row in order:
        if areas_px[row]:
            segment_of[row] = len(segments) + 1
            segments.append(thing_segment(len(segments) + 1, instances, row, int(areas_px[row])))
    segment_ids: NDArray[np.int32] = segment_of[np.maximum(owners, -1)]
    return segment_ids, segments
