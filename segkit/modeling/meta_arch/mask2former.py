"""Mask2Former: queries that each find one segment, for instance, semantic and panoptic segmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from segkit.modeling.queries import QueryOutputs


class Mask2FormerHead(nn.Module):
    """The pixel decoder and the decoder of the queries.

    Args:
        pixel_decoder: levels of the backbone -> (levels for the queries, mask features).
        predictor: (levels, mask features) -> a list of QueryOutputs.
    """

    def __init__(self, pixel_decoder: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pixel_decoder, self.predictor = pixel_decoder, predictor

    def forward(self, features: Mapping[str, torch.Tensor]) -> list[QueryOutputs]:
        """Predict classes and masks.

        Args:
            features: level -> (N, C, h, w) of the backbone.

        Returns:
            As of `MaskedAttentionDecoder`.
        """
        levels, mask_features = self.pixel_decoder(features)
        outputs: list[QueryOutputs] = self.predictor(levels, mask_features)
        return outputs
