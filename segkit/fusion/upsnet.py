"""UPSNet's panoptic head: semantic and mask logits added up, one argmax for each pixel, with an unknown class.

Xiong et al. 2019, "UPSNet: A Unified Panoptic Segmentation Network", sections 3.4 (panoptic head) and 3.5 (pruning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import select_candidates
from segkit.fusion.explanations import RejectionLog
from segkit.fusion.method import LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.options import check_fraction, check_numbers
from segkit.fusion.pixel_argmax import (
    NO_OWNER,
    PixelArgmax,
    Window,
    argmax_selected_channels,
    drop_occluded,
    instance_logits,
    window_in_box,
)
from segkit.structures import THING_CHANNEL, HeadOutputs, InstanceMasks, PanopticSegmentation


@dataclass(frozen=True)
class UPSNetFusion(FusionMethod):
    """Each pixel to the highest of: the stuff logits; of each instance its class's semantic logit plus its mask logit;
    an unknown class, which leaves the pixel void.

    First instances are pruned (section 3.5). instance_score_threshold: those below it go. nms_threshold: so do those
    whose box has a higher IoU with that of a better one, whatever the classes. overlap_threshold: so do those of whose
    binary mask a larger share lies under better ones of their class. Then, at each pixel (section 3.4),
    Z_stuff = X_stuff; Z_i = X_mask_i + Y_mask_i, X_mask_i the logit of its class and Y_mask_i that of its mask, both 0
    outside its box; Z_unknown = max(X_thing) - max(X_mask), if unknown_class. Of equal values the first wins: stuff by
    channel, instances by falling score, unknown. stuff_area_limit_px: stuff that wins fewer pixels is void.

    An instance takes part at the pixels of its crop whose centre lies in its box. Taken literally it could also win
    far away, with its 0 there, where all stuff logits are below 0. In max(X_mask) these zeros do count, as published.
    Where one channel stands for all things it is X_thing, and the class of every instance.
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
        """See the class; outputs: mask_probs and logits."""
        instances = outputs.instances
        order = select_candidates(instances, self.instance_score_threshold, {}, "box", self.nms_threshold, rejections)
        kept = _uncovered_in_class(instances, order, self.overlap_threshold, rejections)
        windows = [window_in_box(instances, row) for row in kept]
        contest = PixelArgmax.from_stuff_channels(outputs.semantic)
        class_logits = _zeros_outside_boxes(windows, instances.size_hw)  # max(X_mask)
        for row, window in zip(kept, windows, strict=True):
            of_class, of_mask, _ = instance_logits(outputs, row, window)
            contest.update_instance(row, window, of_class + of_mask)  # Z_i = X_mask_i + Y_mask_i
            np.maximum(class_logits[window], of_class, out=class_logits[window])
        if self.unknown_class:
            of_things, _ = argmax_selected_channels(outputs.semantic, outputs.semantic.stuff_ids == THING_CHANNEL)
            with np.errstate(invalid="ignore"):  # of two infinities: not above anything
                unknown = of_things - class_logits  # Z_unknown = max(X_thing) - max(X_mask)
            contest.owners[unknown > contest.values] = NO_OWNER
        return contest.result(instances, kept, contest.stuff_map(), self.stuff_area_limit_px, rejections)


def _uncovered_in_class(
    instances: InstanceMasks, order: Sequence[int], overlap_threshold: float, rejections: RejectionLog | None
) -> list[int]:
    """A canvas for each class, which holds the masks of better instances of the class alone."""
    kept: set[int] = set()
    for class_id in np.unique(instances.class_ids[order]):
        of_class = [row for row in order if instances.class_ids[row] == class_id]
        kept.update(drop_occluded(instances, of_class, overlap_threshold, rejections))
    return [row for row in order if row in kept]


def _zeros_outside_boxes(windows: Sequence[Window], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """What max(X_mask) starts from: 0 wherever some instance's box is not, -infinity where all the boxes are."""
    start = np.zeros(size_hw, dtype=np.float32)
    if windows:
        axes = zip(*windows, strict=True)
        start[tuple(slice(max(w.start for w in axis), min(w.stop for w in axis)) for axis in axes)] = -np.inf
    return start
