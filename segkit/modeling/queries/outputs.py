"""What a mask transformer predicts, and what it is trained on (Cheng et al. 2021, MaskFormer, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QueryOutputs:
    """The predictions of one decoder layer for N images: each of Q queries has a class and a mask.

    In training a network returns a list, from the first layer to the last; otherwise a list of the last one alone.

    Attributes:
        class_logits: (N, Q, K + 1) float, the last channel is "no object".
        mask_logits: (N, Q, h, w) float, before the sigmoid, of the padded images.
    """

    class_logits: torch.Tensor
    mask_logits: torch.Tensor


@dataclass(frozen=True)
class QueryTargets:
    """The objects of one training image.

    Attributes:
        class_ids: (n,) int64, contiguous ids of the network's K classes; n may be 0.
        masks: (n, H, W) bool or uint8, of the padded image, or smaller by a stride. All images of a batch have the same
            (H, W).
    """

    class_ids: torch.Tensor
    masks: torch.Tensor
