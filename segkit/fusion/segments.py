"""From the owners of pixels to a PanopticSegmentation: ids 1..N, areas, and stuff in the pixels that are left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import THING_CHANNEL, VOID, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.compiled import COMPILED, compiled

ABSENT = -1  # pixels of a class that is not in the map


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
    """Fill the void pixels of a map with stuff, one segment per class by rising id.

    A class with too few void pixels is left out; they stay void. With a limit of 0 or less, a class without void
    pixels makes an empty segment, as in Detectron2.

    Args:
        segment_ids: (H, W) int32 segment ids of things, 0 = void. It is written to.
        segments: Segments of the things. The ids of stuff follow theirs.
        stuff_map: (H, W) integers, stuff contiguous ids, 0 for things.
        area_limit_px: Lowest number of void pixels of a class.
        rejections: Log for the classes that are left out, or None.

    Returns:
        The panoptic segmentation.
    """
    # One memory layout, so that one variant for each type is compiled.
    stuff = np.require(stuff_map, stuff_map.dtype.newbyteorder("="), ["C", "A", "W"])
    void_px = (_count_void if COMPILED else _count_void_numpy)(segment_ids, stuff, int(stuff.max(initial=0)) + 1)
    segment_of_class = np.full(len(void_px), VOID, dtype=np.int32)
    all_segments = [*segments]
    for class_id in np.flatnonzero(void_px != ABSENT).tolist():
        area_px = int(void_px[class_id])
        if class_id == THING_CHANNEL:
            continue
        if area_px < area_limit_px:
            if rejections is not None and area_px:
                rejections.stuff[class_id] = Rejection("area", area_px, area_limit_px)
            continue
        segment_of_class[class_id] = len(all_segments) + 1
        all_segments.append(Segment(len(all_segments) + 1, class_id, False, area_px))
    (_fill_void if COMPILED else _fill_void_numpy)(segment_ids, stuff, segment_of_class)
    return PanopticSegmentation(segment_ids, tuple(all_segments))


def build_segments_from_owners(
    owners: NDArray[np.int32], order: Sequence[int], instances: InstanceMasks
) -> tuple[NDArray[np.int32], list[Segment]]:
    """Number the instances that own pixels.

    Args:
        owners: (H, W) int32, the row of the instance that owns each pixel, negative for none.
        order: Rows, best first. Other rows own nothing.
        instances: The instances.

    Returns:
        (H, W) int32 segment ids 1..N in that order, VOID elsewhere, and the segments. A row without a pixel has none.
    """
    areas_px = np.bincount(owners[owners >= 0], minlength=len(instances))
    segment_of_row = np.full(len(instances) + 1, VOID, dtype=np.int32)  # the last one is for no owner
    segments: list[Segment] = []
    for row in order:
        if areas_px[row]:
            segment_of_row[row] = len(segments) + 1
            segments.append(build_thing_segment(len(segments) + 1, instances, row, int(areas_px[row])))
    segment_ids: NDArray[np.int32] = segment_of_row[np.maximum(owners, -1)]
    return segment_ids, segments


def _count_void_numpy(segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count,): the void pixels of each class, ABSENT for a class that is not in the map."""
    is_present = np.bincount(stuff_map.ravel(), minlength=count) > 0
    return np.where(is_present, np.bincount(stuff_map[segment_ids == VOID], minlength=count), ABSENT)


def _fill_void_numpy(
    segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], segment_of_class: NDArray[np.int32]
) -> None:
    np.copyto(segment_ids, segment_of_class[stuff_map], where=segment_ids == VOID)


@compiled  # 4 times as fast as numpy, as is _fill_void
def _count_void(segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """As `_count_void_numpy`, by runs of one class: the sum within a run needs no memory."""
    void_px = np.full(count, ABSENT, dtype=np.int64)
    for y in range(stuff_map.shape[0]):
        ids, row, x = segment_ids[y], stuff_map[y], 0
        while x < row.size:
            class_id, void = row[x], 0
            while x < row.size and row[x] == class_id:
                void += ids[x] == VOID
                x += 1
            void_px[class_id] = max(void_px[class_id], 0) + void
    return void_px


@compiled
def _fill_void(
    segment_ids: NDArray[np.int32], stuff_map: NDArray[np.integer], segment_of_class: NDArray[np.int32]
) -> None:
    for y in range(stuff_map.shape[0]):
        ids, row = segment_ids[y], stuff_map[y]
        for x in range(row.size):
            ids[x] = segment_of_class[row[x]] if ids[x] == VOID else ids[x]
