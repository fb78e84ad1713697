"""Deep supervision: auxiliary heads on levels of the backbone, in training only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import nn
from torch.nn import functional as F

from segkit.modeling.semantic_losses import SemanticLosses


class AuxiliaryHeads(nn.ModuleDict):
    """One 3x3 and one 1x1 convolution for each level, with losses of their own (Zhao et al. 2017, PSPNet).

    Args:
        input_shape: level -> channels and stride.
        entries: see `SemanticLosses`.
        classes: channels of the logits.
        conv_dims: channels between the convolutions.
        norm: name of the norm, see `detectron2.layers.get_norm`.
        weight: factor of all losses.
        ignore_value: label of the pixels without a label.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        entries: Sequence[str | Mapping[str, Any]],
        *,
        classes: int,
        conv_dims: int,
        norm: str = "",
        weight: float = 0.4,
        ignore_value: int = 255,
    ) -> None:
        super().__init__()
        for level, shape in input_shape.items():
            options = {"bias": not norm, "norm": get_norm(norm, conv_dims), "activation": F.relu}
            convolution = Conv2d(shape.channels, conv_dims, 3, padding=1, **options)
            predictor = Conv2d(conv_dims, classes, 1)
            weight_init.c2_msra_fill(convolution)
            weight_init.c2_msra_fill(predictor)
            losses = SemanticLosses(
                entries, stride=shape.stride, ignore_value=ignore_value, weight=weight, classes=classes
            )
            self[level] = nn.ModuleDict({"conv": convolution, "predictor": predictor, "losses": losses})

    def forward(self, features: Mapping[str, torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses.

        Args:
            features: level -> (B, C, h, w).
            targets: (B, H, W) int64 channels.

        Returns:
            "loss_sem_seg_aux_<level>" -> the sum of the level's losses.
        """
        losses = {}
        head: Any
        for level, head in self.items():
            terms = head["losses"](head["predictor"](head["conv"](features[level])), targets)
            losses[f"loss_sem_seg_aux_{level}"] = torch.stack([*terms.values()]).sum()
        return losses
