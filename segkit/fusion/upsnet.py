"""UPSNet's panoptic head: the sum of semantic and mask logits, one argmax per pixel, and an unknown class.

Xiong et al. 2019, "UPSNet: A Unified Panoptic Segmentation Network", sections 3.4 (panoptic head) and 3.5 (pruning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import Window, select_candidates
from segkit.fusion.explanations import RejectionLog
from segkit.fusion.method import LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.pixel_argmax import (
    NO_OWNER,
    PixelArgmax,
    argmax_selected_channels,
    drop_occluded,
    instance_logits,
    window_in_box,
)
from segkit.structures import THING_CHANNEL, HeadOutputs, InstanceMasks, PanopticSegmentation
from segkit.utils.options import check_fraction, check_numbers


@dataclass(frozen=True)
class UPSNetFusion(FusionMethod):
    """Each pixel goes to the highest of the stuff logits, the instances' summed logits and an unknown class (void).

    First the instances are pruned (section 3.5): by score, by box NMS and by overlap. Then, at each pixel (section
    3.4), Z_stuff = X_stuff; Z_i = X_mask_i + Y_mask_i, the semantic logit of the class plus the logit of the mask, both
    0 outside the box; Z_unknown = max(X_thing) - max(X_mask). Of equal values the first wins: stuff by channel, then
    instances by falling score, then unknown.

    An instance takes part at pixels of its crop whose center is in its box. With the 0 outside it could also win far
    away, if all stuff logits are below 0. In max(X_mask) these zeros count, as published. If one channel stands for all
    things, it is X_thing and the class of every instance.

    Attributes:
        instance_score_threshold: In [0, 1]. Instances with a lower score are left out.
        nms_threshold: In [0, 1]. An instance is left out if its box has a higher IoU with a better one of any class.
        overlap_threshold: In [0, 1]. An instance is left out if better ones of its class cover more of its mask.
        stuff_area_limit_px: Pixels. A stuff class that wins fewer pixels is void.
        unknown_class: Whether Z_unknown takes part.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MASK_PROBS, LOGITS})

    instance_score_threshold: float = 0.6
    nms_threshold: float = 0.5
    overlap_threshold: float = 0.3
    stuff_area_limit_px: float = 4096.0
    unknown_class: bool = True

    def __post_init__(self) -> None:
        check_fraction(self, "instance_score_threshold", "nms_threshold", "overlap_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class."""
        instances, semantic = outputs.instances, outputs.semantic
        candidates = select_candidates(
            instances, self.instance_score_threshold, {}, "box", self.nms_threshold, rejections
        )
        order = _drop_occluded_by_class(instances, candidates, self.overlap_threshold, rejections)
        windows = [window_in_box(instances, row) for row in order]
        argmax = PixelArgmax.from_stuff_channels(semantic)
        highest_class_logits = _build_zeros_outside_boxes(windows, instances.size_hw)  # max(X_mask)
        for row, window in zip(order, windows, strict=True):
            class_logits, mask_logits, _ = instance_logits(outputs, row, window)
            argmax.update_where_higher(argmax.first_instance + row, window, class_logits + mask_logits)  # Z_i
            np.maximum(highest_class_logits[window], class_logits, out=highest_class_logits[window])
        if self.unknown_class:
            thing_logits, _ = argmax_selected_channels(semantic, semantic.stuff_ids == THING_CHANNEL)
            with np.errstate(invalid="ignore"):  # the NaN of two infinities is not above any value
                unknown_logits = thing_logits - highest_class_logits  # Z_unknown = max(X_thing) - max(X_mask)
            argmax.owners[unknown_logits > argmax.values] = NO_OWNER
        stuff_map = argmax.build_stuff_map()
        return argmax.build_segmentation(instances, order, stuff_map, self.stuff_area_limit_px, rejections)


def _drop_occluded_by_class(
    instances: InstanceMasks, order: Sequence[int], overlap_threshold: float, rejections: RejectionLog | None
) -> list[int]:
    """As `drop_occluded`, but only instances of one class occlude each other."""
    selected: set[int] = set()
    for class_id in np.unique(instances.class_ids[order]):
        rows_of_class = [row for row in order if instances.class_ids[row] == class_id]
        selected.update(drop_occluded(instances, rows_of_class, overlap_threshold, rejections))
    return [row for row in order if row in selected]


def _build_zeros_outside_boxes(windows: Sequence[Window], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """The start of max(X_mask): 0 at pixels outside of any box, -infinity at pixels that all boxes cover."""
    start = np.zeros(size_hw, dtype=np.float32)
    if windows:
        axes = zip(*windows, strict=True)
        start[tuple(slice(max(w.start for w in axis), min(w.stop for w in axis)) for axis in axes)] = -np.inf
    return start
