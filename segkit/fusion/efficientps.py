"""EfficientPS's panoptic fusion: the logits of both heads amplify each other where they agree.

Mohan and Valada 2021, "EfficientPS: Efficient Panoptic Segmentation", section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import select_candidates
from segkit.fusion.explanations import RejectionLog
from segkit.fusion.method import LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.options import check_fraction, check_numbers
from segkit.fusion.pixel_argmax import PixelArgmax, drop_occluded, instance_logits, window_in_box
from segkit.structures import HeadOutputs, PanopticSegmentation


@dataclass(frozen=True)
class EfficientPSFusion(FusionMethod):
    """Each pixel to the highest of the stuff logits and the fused logits of the instances; what no instance wins goes
    to the semantic head's best channel, if that is one of stuff.

    instance_score_threshold: instances below it are left out. overlap_threshold: so are those of whose binary mask a
    larger share lies under better ones, of whatever class. Then the fused logit of an instance is
    FL = (sigmoid(ML_A) + sigmoid(ML_B)) * (ML_A + ML_B), pixel by pixel, of its mask's logit ML_A and its class's
    semantic logit ML_B. Of equal values the first wins: stuff by channel, instances by falling score.
    stuff_area_limit_px (min_sa): a stuff class with fewer pixels left is void.

    Both logits are of the pixels of the crop whose centre lies in the box: outside, where the paper pads with 0, an
    instance takes no part, or else it would win wherever all stuff logits are below 0. A pixel that no instance wins
    and whose best channel of all is one of things stays void: the paper fills the canvas with the predictions of the
    semantic head that are stuff, and so does the authors' code (which also multiplies ML_A by 4, the paper does not).
    """

    needs: ClassVar[frozenset[str]] = frozenset({MASK_PROBS, LOGITS})

    instance_score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area_limit_px: float = 2048.0

    def __post_init__(self) -> None:
        check_fraction(self, "instance_score_threshold", "overlap_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See the class; outputs: mask_probs, logits and the best channel of each pixel."""
        instances = outputs.instances
        order = select_candidates(instances, self.instance_score_threshold, {}, "none", 1.0, rejections)
        kept = drop_occluded(instances, order, self.overlap_threshold, rejections)
        contest = PixelArgmax.from_stuff_channels(outputs.semantic)
        for row in kept:
            window = window_in_box(instances, row)
            of_class, of_mask, probs = instance_logits(outputs, row, window)
            contest.update_instance(
                row, window, (probs + _sigmoid(of_class)) * (of_mask + of_class)
            )  # FL; sigmoid(ML_A)
        stuff_map = outputs.semantic.stuff_map()
        return contest.result(instances, kept, stuff_map, self.stuff_area_limit_px, rejections)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp(-x) = infinity gives 0
        found: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return found
