"""The heuristic fusion of Kirillov et al. 2019, "Panoptic Segmentation", section 5, as Detectron2 applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segkit.fusion.candidates import candidates
from segkit.fusion.fates import Verdict, Verdicts
from segkit.fusion.method import FusionMethod
from segkit.fusion.options import check_fraction, check_nms
from segkit.fusion.segments import fill_stuff, thing_segment
from segkit.structures import VOID, HeadOutputs, PanopticSegmentation, Segment


@dataclass(frozen=True)
class HeuristicFusion(FusionMethod):
    """Instances by falling score, each only where no better one is; stuff in what remains.

    overlap_threshold: an instance of which more than this share is already taken is left out, in [0, 1].
    stuff_area_limit_px: a stuff segment with fewer pixels left is left out.
    instance_score_threshold: instances below it are left out; score_threshold_of: by thing contiguous id, instead of
    it. nms, nms_threshold: see `candidates`.

    With the first three alone identical to `combine_semantic_and_instance_outputs` in
    detectron2/modeling/meta_arch/panoptic_fpn.py, ids, order and all, an empty segment for an instance that is all
    taken at overlap_threshold 1 included.
    """

    overlap_threshold: float = 0.5
    stuff_area_limit_px: float = 4096
    instance_score_threshold: float = 0.5
    score_threshold_of: Mapping[int, float] = field(default_factory=dict)
    nms: str = "none"
    nms_threshold: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(self, "overlap_threshold", "nms_threshold")
        check_nms(self.nms)

    def fuse(self, outputs: HeadOutputs, verdicts: Verdicts | None) -> PanopticSegmentation:
        """See the class; outputs: crops and the best channel of each pixel."""
        instances = outputs.instances
        order = candidates(
            instances,
            self.instance_score_threshold,
            self.score_threshold_of,
            self.nms,
            self.nms_threshold,
            verdicts,
        )
        segment_ids = np.full(instances.size_hw, VOID, dtype=np.int32)
        segments: list[Segment] = []
        for row in order:
            mask, window = instances.crops[row], segment_ids[instances.window(row)]
            area_px = int(np.count_nonzero(mask))
            if area_px == 0:
                continue
            free = mask & (window == VOID)
            free_px = int(np.count_nonzero(free))
            taken = (area_px - free_px) / area_px
            if taken > self.overlap_threshold:
                if verdicts is not None:
                    verdicts.instances[row] = Verdict("overlap", taken, self.overlap_threshold)
                continue
            segments.append(thing_segment(len(segments) + 1, instances, row, free_px))
            window[free] = len(segments)
        return fill_stuff(segment_ids, segments, outputs.semantic.stuff_map(), self.stuff_area_limit_px, verdicts)
