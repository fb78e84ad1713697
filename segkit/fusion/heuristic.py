"""The heuristic fusion of Kirillov et al. 2019, "Panoptic Segmentation", section 5, as Detectron2 applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import select_candidates
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.method import FusionMethod
from segkit.fusion.options import check_nms, check_thresholds
from segkit.fusion.segments import build_thing_segment, fill_stuff
from segkit.structures import VOID, HeadOutputs, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.options import check_fraction, check_numbers


@dataclass(frozen=True)
class HeuristicFusion(FusionMethod):
    """Instances by falling score, each at the pixels that no better one holds; stuff in the pixels that remain.

    With overlap_threshold, stuff_area_limit_px and instance_score_threshold alone the result is identical to
    `combine_semantic_and_instance_outputs` in detectron2/modeling/meta_arch/panoptic_fpn.py: ids, order, and an empty
    segment for an instance that is fully covered at overlap_threshold 1.

    Attributes:
        overlap_threshold: In [0, 1]. An instance is left out if better ones hold more than this share of its mask.
        stuff_area_limit_px: Pixels. A stuff segment with fewer pixels left is left out.
        instance_score_threshold: Instances with a lower score are left out.
        class_score_thresholds: Score threshold by thing contiguous id, instead of instance_score_threshold.
        nms: "none", "box" or "mask", see `select_candidates`.
        nms_threshold: IoU in [0, 1], see `select_candidates`.
    """

    combine_options: ClassVar[tuple[str, ...]] = (
        "overlap_threshold",
        "stuff_area_limit_px",
        "instance_score_threshold",
    )

    overlap_threshold: float = 0.5
    stuff_area_limit_px: float = 4096.0
    instance_score_threshold: float = 0.5
    class_score_thresholds: Mapping[int, float] = field(default_factory=dict)
    nms: str = "none"
    nms_threshold: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(self, "overlap_threshold", "nms_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)
        check_numbers(self, "instance_score_threshold")
        check_thresholds(self, "class_score_thresholds")
        check_nms(self.nms)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class."""
        instances = outputs.instances
        thresholds = self.instance_score_threshold, self.class_score_thresholds
        canvas = Canvas(instances, self.overlap_threshold, rejections)
        for row in select_candidates(instances, *thresholds, self.nms, self.nms_threshold, rejections):
            self._place(canvas, row)
        segment_ids, segments = canvas.build_segments()
        return fill_stuff(segment_ids, segments, outputs.semantic.stuff_map(), self.stuff_area_limit_px, rejections)

    def _place(self, canvas: Canvas, row: int) -> None:
        canvas.place(row, {})


class Canvas:
    """The placed instances. Each has a number from 1.

    Args:
        instances: The instances.
        overlap_threshold: In [0, 1], largest share of a mask that others may hold.
        rejections: Log for the instances that are left out or dropped, or None.

    Attributes:
        numbers: (H, W) int32, the number of the instance that holds each pixel, VOID for none.
        rows: Row of each number.
        held_px: Pixels that each number holds. A dropped number is not in it.
        areas_px: Pixels of the mask of each row.
    """

    def __init__(self, instances: InstanceMasks, overlap_threshold: float, rejections: RejectionLog | None) -> None:
        self.instances, self.overlap_threshold, self.rejections = instances, overlap_threshold, rejections
        self.numbers = np.full(instances.size_hw, VOID, dtype=np.int32)
        self._is_free = np.ones(instances.size_hw, dtype=np.bool_)  # numbers == VOID
        self.areas_px: list[int] = instances.areas_px.tolist()
        self.rows = [-1]  # the number VOID has no row
        self.held_px: dict[int, int] = {}

    def place(self, row: int, occluded_px: Mapping[int, int]) -> bool:
        """Give a row the free pixels of its mask and the occluded ones, unless others hold too much of it.

        Args:
            row: Row of the instance.
            occluded_px: How many pixels it takes from each number that it occludes.

        Returns:
            Whether it was placed. An instance without a pixel is not.
        """
        mask, window = self.instances.crops[row], self.instances.window(row)
        is_free = self._is_free[window]
        gained = mask & is_free
        held_px = int(np.count_nonzero(gained)) + sum(occluded_px.values())
        if self.areas_px[row] == 0 or self._is_overlapped(row, held_px):
            return False
        for number, pixels in occluded_px.items():
            gained |= mask & (self.numbers[window] == number)
            self.held_px[number] -= pixels
        self.numbers[window][gained] = len(self.rows)
        np.greater(is_free, gained, out=is_free)  # and not gained
        self.held_px[len(self.rows)] = held_px
        self.rows.append(row)
        return True

    def drop_if_overlapped(self, number: int) -> None:
        """Free the pixels of a number if others hold too much of its mask."""
        row = self.rows[number]
        if self._is_overlapped(row, self.held_px[number]):
            window = self.instances.window(row)
            is_dropped = self.numbers[window] == number
            self.numbers[window][is_dropped] = VOID
            self._is_free[window] |= is_dropped
            del self.held_px[number]

    def _is_overlapped(self, row: int, held_px: int) -> bool:
        share = (self.areas_px[row] - held_px) / self.areas_px[row]
        if share > self.overlap_threshold and self.rejections is not None:
            self.rejections.instances[row] = Rejection("overlap", share, self.overlap_threshold)
        return share > self.overlap_threshold

    def build_segments(self) -> tuple[NDArray[np.int32], list[Segment]]:
        """The map and the segments of the numbers that were not dropped, with ids 1..N in order of placing."""
        segments = [
            build_thing_segment(segment_id, self.instances, self.rows[number], area_px)
            for segment_id, (number, area_px) in enumerate(self.held_px.items(), 1)
        ]
        if len(segments) == len(self.rows) - 1:
            return self.numbers, segments
        segment_of_number = np.full(len(self.rows), VOID, dtype=np.int32)
        segment_of_number[[*self.held_px]] = [s.segment_id for s in segments]
        segment_ids: NDArray[np.int32] = segment_of_number[self.numbers]
        return segment_ids, segments
