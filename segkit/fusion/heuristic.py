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
from segkit.fusion.options import check_fraction, check_nms, check_numbers, check_thresholds
from segkit.fusion.paste import flatten_crops
from segkit.fusion.segments import build_thing_segment, fill_stuff
from segkit.structures import VOID, HeadOutputs, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.compiled import COMPILED, compiled


@dataclass(frozen=True)
class HeuristicFusion(FusionMethod):
    """Instances by falling score, each only where no better one is; stuff in what remains.

    overlap_threshold: an instance of which more than this share is already taken is left out, in [0, 1].
    stuff_area_limit_px: a stuff segment with fewer pixels left is left out.
    instance_score_threshold: instances below it are left out; class_score_thresholds: by thing contiguous id, instead
    of it. nms, nms_threshold: see `candidates`.

    With the first three alone identical to `combine_semantic_and_instance_outputs` in
    detectron2/modeling/meta_arch/panoptic_fpn.py, ids, order and all, an empty segment for an instance that is all
    taken at overlap_threshold 1 included.
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
        """See the class; outputs: crops and the best channel of each pixel."""
        instances = outputs.instances
        order = select_candidates(
            instances,
            self.instance_score_threshold,
            self.class_score_thresholds,
            self.nms,
            self.nms_threshold,
            rejections,
        )
        segment_ids = np.full(instances.size_hw, VOID, dtype=np.int32)
        place = _place_compiled if COMPILED else _place
        segments: list[Segment] = []
        for row, (area_px, free_px, kept) in zip(
            order, place(instances, order, self.overlap_threshold, segment_ids), strict=True
        ):
            if kept:
                segments.append(build_thing_segment(len(segments) + 1, instances, row, free_px))
            elif area_px and rejections is not None:
                rejections.instances[row] = Rejection("overlap", (area_px - free_px) / area_px, self.overlap_threshold)
        return fill_stuff(segment_ids, segments, outputs.semantic.stuff_map(), self.stuff_area_limit_px, rejections)


def _place(
    instances: InstanceMasks, order: list[int], overlap_threshold: float, segment_ids: NDArray[np.int32]
) -> list[list[int]]:
    """Write ids 1.. of the rows that are kept; of each row (pixels of its mask, free ones of them, whether kept)."""
    placed, made = [], 0
    for row in order:
        mask, window = instances.crops[row], segment_ids[instances.window(row)]
        free = mask & (window == VOID)
        area_px, free_px = int(np.count_nonzero(mask)), int(np.count_nonzero(free))
        kept = area_px > 0 and (area_px - free_px) / area_px <= overlap_threshold
        if kept:
            made += 1
            window[free] = made
        placed.append([area_px, free_px, kept])
    return placed


def _place_compiled(
    instances: InstanceMasks, order: list[int], overlap_threshold: float, segment_ids: NDArray[np.int32]
) -> list[list[int]]:
    pixels, begins = flatten_crops(instances)
    sides_hw = np.array([crop.shape for crop in instances.crops], dtype=np.int64).reshape(-1, 2)
    windows = np.column_stack([begins, instances.corners_xy, sides_hw])[order]
    placed = np.zeros((len(order), 3), dtype=np.int64)
    _place_rows(pixels, windows, float(overlap_threshold), segment_ids, placed)
    found: list[list[int]] = placed.tolist()
    return found


@compiled
def _place_rows(
    pixels: NDArray[np.bool_],
    windows: NDArray[np.int64],
    overlap_threshold: float,
    segment_ids: NDArray[np.int32],
    placed: NDArray[np.int64],
) -> None:
    """windows: (n, 5), where in `pixels` each crop begins, left, top, height, width; placed: see `_place`."""
    made = 0
    for row in range(len(windows)):
        begin, left, top, height, width = windows[row]
        area_px = free_px = 0
        for y in range(height):
            mask, ids = pixels[begin + y * width :][:width], segment_ids[top + y, left : left + width]
            for x in range(width):
                area_px += mask[x]
                free_px += mask[x] & (ids[x] == VOID)
        placed[row, 0], placed[row, 1] = area_px, free_px
        if area_px == 0 or (area_px - free_px) / area_px > overlap_threshold:
            continue
        placed[row, 2] = 1
        made += 1
        for y in range(height):
            mask, ids = pixels[begin + y * width :][:width], segment_ids[top + y, left : left + width]
            for x in range(width):
                ids[x] = made if mask[x] & (ids[x] == VOID) else ids[x]
