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
from segkit.fusion.pixel_argmax import PixelArgmax, drop_occluded, instance_logits, window_in_box
from segkit.structures import HeadOutputs, PanopticSegmentation
from segkit.utils.options import check_fraction, check_numbers


@dataclass(frozen=True)
class EfficientPSFusion(FusionMethod):
    """Each pixel goes to the highest of the stuff logits and the fused logits of the instances.

    The fused logit of an instance is FL = (sigmoid(ML_A) + sigmoid(ML_B)) * (ML_A + ML_B) at each pixel, with ML_A the
    logit of its mask and ML_B the semantic logit of its class. Of equal values the first wins: stuff by channel, then
    instances by falling score. Pixels that no instance wins go to the best semantic channel if it is of stuff, as in
    the paper. They stay void if it is of things, as in the authors' code.

    An instance takes part only at pixels of its crop whose center is in its box. The paper pads with 0 outside, which
    would win wherever all stuff logits are below 0. The authors' code also multiplies ML_A by 4. The paper does not.

    Attributes:
        instance_score_threshold: In [0, 1]. Instances with a lower score are left out.
        overlap_threshold: In [0, 1]. An instance is left out if better ones of any class cover more of its mask.
        stuff_area_limit_px: Pixels (min_sa). A stuff class with fewer pixels left is void.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MASK_PROBS, LOGITS})

    instance_score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area_limit_px: float = 2048.0

    def __post_init__(self) -> None:
        check_fraction(self, "instance_score_threshold", "overlap_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class."""
        instances = outputs.instances
        candidates = select_candidates(instances, self.instance_score_threshold, {}, "none", 1.0, rejections)
        order = drop_occluded(instances, candidates, self.overlap_threshold, rejections)
        argmax = PixelArgmax.from_stuff_channels(outputs.semantic)
        for row in order:
            window = window_in_box(instances, row)
            class_logits, mask_logits, probs = instance_logits(outputs, row, window)
            fused_logits = (probs + _sigmoid(class_logits)) * (mask_logits + class_logits)  # FL; probs = sigmoid(ML_A)
            argmax.update_where_higher(argmax.first_instance + row, window, fused_logits)
        stuff_map = outputs.semantic.stuff_map()
        return argmax.build_segmentation(instances, order, stuff_map, self.stuff_area_limit_px, rejections)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp(-x) = infinity gives 0
        probs: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return probs
