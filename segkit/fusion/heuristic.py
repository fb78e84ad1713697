"""The heuristic fusion of Kirillov et al. 2019, "Panoptic Segmentation", section 5, as Detectron2 applies it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.structures import THING_CHANNEL, VOID, InstanceMasks, PanopticSegmentation, Segment


@dataclass(frozen=True)
class HeuristicFusion:
    """Instances by falling score, each only where no better one is; stuff in what remains.

    instance_score_threshold: instances below it are left out, in [0, 1].
    overlap_threshold: an instance of which more than this share is already taken is left out, in [0, 1].
    stuff_area_limit_px: a stuff segment with fewer pixels left is left out.

    Identical to `combine_semantic_and_instance_outputs` in detectron2/modeling/meta_arch/panoptic_fpn.py, ids,
    order and all; equal scores keep the order of the instances.
    """

    overlap_threshold: float = 0.5
    stuff_area_limit_px: float = 4096
    instance_score_threshold: float = 0.5

    def __call__(self, instances: InstanceMasks, stuff_ids: NDArray[np.integer]) -> PanopticSegmentation:
        """Fuse the instances and the semantic map of one image.

        instances: class_ids are thing contiguous ids. stuff_ids: (H, W), stuff contiguous id of each pixel,
        `THING_CHANNEL` where the semantic head sees a thing. Returns ids 1..N, things first by falling score, then
        stuff by rising id; a pixel that nobody claims stays void. No instances, no stuff: what is left, or all void.
        Raises ValueError where the sizes differ or an id is negative. The inputs are not changed.
        """
        if stuff_ids.shape != instances.size_hw:
            raise ValueError(f"stuff_ids must be of the instances' size {instances.size_hw}, got {stuff_ids.shape}")
        if stuff_ids.size and stuff_ids.min() < 0:
            raise ValueError(f"stuff_ids must not be negative, got {stuff_ids.min()}")
        segment_ids = np.full(stuff_ids.shape, VOID, dtype=np.int32)
        segments: list[Segment] = []
        self._place_instances(instances, segment_ids, segments)
        self._fill_stuff(stuff_ids, segment_ids, segments)
        return PanopticSegmentation(segment_ids, tuple(segments))

    def _place_instances(
        self, instances: InstanceMasks, segment_ids: NDArray[np.int32], segments: list[Segment]
    ) -> None:
        for index in np.argsort(-instances.scores, kind="stable").tolist():
            score = float(instances.scores[index])
            if score < self.instance_score_threshold:
                break
            mask, window = instances.crops[index], segment_ids[instances.window(index)]
            area_px = int(np.count_nonzero(mask))
            if area_px == 0:
                continue
            free = mask & (window == VOID)
            free_px = int(np.count_nonzero(free))
            if (area_px - free_px) / area_px > self.overlap_threshold:
                continue
            segment_id = len(segments) + 1
            window[free] = segment_id
            class_id = int(instances.class_ids[index])
            segments.append(Segment(segment_id, class_id, True, free_px, score=score, instance_id=index))

    def _fill_stuff(
        self, stuff_ids: NDArray[np.integer], segment_ids: NDArray[np.int32], segments: list[Segment]
    ) -> None:
        free = segment_ids == VOID
        free_px = np.bincount(stuff_ids[free])
        segment_of = np.full(int(stuff_ids.max(initial=0)) + 1, VOID, dtype=np.int32)
        for stuff_id in np.flatnonzero(np.bincount(stuff_ids.ravel())).tolist():
            area_px = int(free_px[stuff_id]) if stuff_id < len(free_px) else 0
            if stuff_id == THING_CHANNEL or area_px < self.stuff_area_limit_px:
                continue
            segment_of[stuff_id] = len(segments) + 1
            segments.append(Segment(len(segments) + 1, stuff_id, False, area_px))
        np.copyto(segment_ids, segment_of[stuff_ids], where=free)
