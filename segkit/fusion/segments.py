"""From who owns which pixel to a PanopticSegmentation: stuff in what is left, ids 1..N, areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import THING_CHANNEL, VOID, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.compiled import COMPILED, compiled

ABSENT = -1  # pixels of a class that the map does not hold


def build_thing_segment(segment_id: int, instances: InstanceMasks, row: int, area_px: int) -> Segment:
    """The segment of the instance at `row`."""
    class_id, score = int(instances.class_ids[row]), float(instances.scores[row])
    return Segment(segment_id, class_id, True, area_px, score=score, instance_id=row)


def fill_stuff(
    segment_ids: NDArray[np.int32],
    segments: Sequence[Segment],
    stuff_map: NDArray[np.integer],
    area_limit_px: float,
    rejections: RejectionLog | None,
) -> PanopticSegmentation:
    """Stuff where the map is void, one segment for each class by rising id, ids going on after those of `segments`.

    segment_ids: (H, W), written to. stuff_map: (H, W) stuff contiguous ids, 0 for things. A class with fewer void
    pixels than area_limit_px is left out and they stay void; with a limit of 0 or below a class that is all taken makes
    an empty segment, as in Detectron2.
    """
    stuff = _native(stuff_map)
    free_px = (_count_free if COMPILED else _count_free_numpy)(segment_ids, stuff, int(stuff.max(initial=0)) + 1)
    segment_of = np.full(len(free_px), VOID, dtype=np.int32)
    listed = [*segments]
    for stuff_id in np.flatnonzero(free_px != ABSENT).tolist():
        area_px = int(free_px[stuff_id])
        if stuff_id == THING_CHANNEL:
            continue
        if area_px < area_limit_px:
            if rejections is not None and area_px:
                rejections.stuff[stuff_id] = Rejection("area", area_px, area_limit_px)
            continue
        segment_of[stuff_id] = len(listed) + 1
        listed.append(Segment(len(listed) + 1, stuff_id, False, area_px))
    (_fill_void if COMPILED else _fill_void_numpy)(segment_ids, stuff, segment_of)
    return PanopticSegmentation(segment_ids, tuple(listed))


def build_segments_from_owners(
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
            segments.append(build_thing_segment(len(segments) + 1, instances, row, int(areas_px[row])))
    segment_ids: NDArray[np.int32] = segment_of[np.maximum(owners, -1)]
    return segment_ids, segments


def _native(stuff_map: NDArray[np.integer]) -> NDArray[np.integer]:
    """In one memory layout, so that one variant for each type is compiled."""
    return np.require(stuff_map, stuff_map.dtype.newbyteorder("="), ["C", "A", "W"])


def _count_free_numpy(segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count,): the void pixels of each class of the map, ABSENT of one that the map does not hold."""
    there = np.bincount(stuff_map.ravel(), minlength=count) > 0
    free_px = np.bincount(stuff_map[segment_ids == VOID], minlength=count)
    return np.where(there, free_px, ABSENT)


def _fill_void_numpy(
    segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], segment_of: NDArray[np.int32]
) -> None:
    np.copyto(segment_ids, segment_of[stuff_map], where=segment_ids == VOID)


@compiled
def _count_free(segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """As `_count_free_numpy`, by runs of one class: the sum within a run needs no memory."""
    free_px = np.full(count, ABSENT, dtype=np.int64)
    for y in range(stuff_map.shape[0]):
        ids, row, x = segment_ids[y], stuff_map[y], 0
        while x < row.size:
            stuff_id, free = row[x], 0
            while x < row.size and row[x] == stuff_id:
                free += ids[x] == VOID
                x += 1
            free_px[stuff_id] = max(free_px[stuff_id], 0) + free
    return free_px


@compiled
def _fill_void(segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], segment_of: NDArray[np.int32]) -> None:
    for y in range(stuff_map.shape[0]):
        ids, row = segment_ids[y], stuff_map[y]
        for x in range(row.size):
            ids[x] = segment_of[row[x]] if ids[x] == VOID else ids[x]
