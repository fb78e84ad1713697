"""Panoptic-DeepLab's fusion: pixels are grouped around centers, and the pixels of each group vote on its class.

Cheng et al. 2020, "Panoptic-DeepLab", section 3.3; detectron2/projects/panoptic_deeplab/post_processing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import select_candidates
from segkit.fusion.explanations import RejectionLog
from segkit.fusion.grouping import NO_OWNER, find_heat_peaks, group_by_masks, group_by_offsets
from segkit.fusion.method import FusionMethod
from segkit.fusion.segments import fill_stuff
from segkit.structures import NO_THING, THING_CHANNEL, VOID, HeadOutputs, PanopticSegmentation, Segment, SemanticScores
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_fraction, check_numbers


@dataclass(frozen=True)
class MajorityVoteFusion(FusionMethod):
    """The thing pixels of the semantic head are grouped into instances; each has the class of most of its pixels.

    Of equal counts the class of the first channel wins. Thing pixels are void if there is no center.

    With outputs.centers (Panoptic-DeepLab), centers are the peaks of the heatmap. Each thing pixel belongs to the
    center nearest to where its offset points. The score is the heat of the center, and instance_id is None:
    outputs.instances are not used. The segments equal those of `get_panoptic_segmentation` of the reference, pixel by
    pixel. Its ids are class x label_divisor + count.

    Without centers (Mask R-CNN), the instances with a sufficient score are the groups, see `group_by_masks`. Score and
    instance_id are those of the instance. The class is that of the vote, which may differ from the box head's.

    Attributes:
        center_threshold: In [0, 1], a center must have a higher heat.
        nms_kernel: Odd number of pixels, the side of the window in which a center has the highest heat.
        top_k: Fewer centers than this are used.
        stuff_area_limit_px: Pixels. Smaller stuff segments are left out.
        instance_score_threshold: Without centers, instances with a lower score are left out.
    """

    center_threshold: float = 0.1
    nms_kernel: int = 7
    top_k: int = 200
    stuff_area_limit_px: float = 2048.0
    instance_score_threshold: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(self, "center_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)
        check_numbers(self, "instance_score_threshold")
        where = type(self).__name__
        if self.nms_kernel < 1 or self.nms_kernel % 2 == 0:
            raise ConfigError(f"nms_kernel must be odd and at least 1, got {self.nms_kernel}", where=where)
        if self.top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {self.top_k}", where=where)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class. Raises ConfigError if a thing class has no semantic channel of its own."""
        semantic = outputs.semantic
        isthing = semantic.stuff_ids == THING_CHANNEL
        if (semantic.thing_ids[isthing] == NO_THING).any():
            raise ConfigError(
                "MajorityVoteFusion needs a semantic channel for each thing class, but here things share one channel",
                remedy="train the semantic head with a channel per class, or choose another fusion method",
            )
        pixels = np.flatnonzero(isthing[semantic.channels])
        if outputs.centers is not None:
            peaks = find_heat_peaks(outputs.centers.heatmap, self.center_threshold, self.nms_kernel, self.top_k)
            scores = outputs.centers.heatmap[peaks[:, 0], peaks[:, 1]]
            groups, rows = group_by_offsets(outputs.centers, peaks, pixels), None
        else:
            limit = self.instance_score_threshold
            rows = select_candidates(outputs.instances, limit, {}, "none", 1.0, rejections)
            groups, scores = group_by_masks(outputs.instances, rows, pixels), outputs.instances.scores[rows]
        segment_ids, segments = _vote(semantic, pixels, groups, scores, rows)
        return fill_stuff(segment_ids, segments, semantic.stuff_map(), self.stuff_area_limit_px, rejections)


def _vote(
    semantic: SemanticScores,
    pixels: NDArray[np.int64],
    groups: NDArray[np.int32],
    scores: NDArray[np.float32],
    rows: Sequence[int] | None,
) -> tuple[NDArray[np.int32], list[Segment]]:
    """The map and the segments of things, by falling score of their groups. A group without a pixel has no segment."""
    has_group = groups != NO_OWNER
    pixels, groups = pixels[has_group], groups[has_group]
    channels = len(semantic.stuff_ids)
    keys = groups.astype(np.int64) * channels + semantic.channels.reshape(-1)[pixels].astype(np.int64)
    votes = np.bincount(keys, minlength=len(scores) * channels).reshape(len(scores), channels)
    segment_of_group = np.full(len(scores), VOID, dtype=np.int32)
    segments: list[Segment] = []
    for group in np.argsort(-scores, kind="stable").tolist():
        if area_px := int(votes[group].sum()):
            segment_of_group[group] = len(segments) + 1
            class_id, row = int(semantic.thing_ids[votes[group].argmax()]), None if rows is None else rows[group]
            score = float(scores[group])
            segments.append(Segment(len(segments) + 1, class_id, True, area_px, score=score, instance_id=row))
    segment_ids = np.full(semantic.channels.size, VOID, dtype=np.int32)
    segment_ids[pixels] = segment_of_group[groups]
    return segment_ids.reshape(semantic.size_hw), segments
