"""Mask2Former's network alone, and its weights under the names of Hugging Face's transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

from segkit.engine.importers.mask2former import PAIRS
from segkit.modeling.backbones.swin import SwinBackbone
from segkit.modeling.meta_arch.mask2former import Mask2FormerHead
from segkit.modeling.queries import QueryOutputs
from segkit.modeling.queries.masked_decoder import MaskedAttentionDecoder
from segkit.modeling.queries.pixel_decoder import DeformablePixelDecoder


class Mask2FormerNetwork(nn.Module):
    """A Swin, the pixel decoder and the decoder, with the names of the architecture."""

    def __init__(self, backbone: SwinBackbone, classes: int, queries: int, channels: int, heads: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = Mask2FormerHead(
            DeformablePixelDecoder(backbone.output_shape(), channels, heads=heads),
            MaskedAttentionDecoder(classes, queries, channels, heads=heads),
        )

    def forward(self, images: torch.Tensor) -> list[QueryOutputs]:
        """From normalized images (N, 3, H, W) to the outputs."""
        return self.sem_seg_head(self.backbone(images))  # type: ignore[no-any-return]


def to_transformers(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename tensors of ours, and cut those that transformers has in parts."""
    renamed = {}
    for name, weight in weights.items():
        for ours, theirs in PAIRS:
            if match := re.match(re.escape(ours).replace(r"\#", r"(\d+)"), name):
                numbers = iter(match.groups())
                target = re.sub("#", lambda _, numbers=numbers: next(numbers), theirs) + name[match.end() :]
                parts = "qkv" if "[qkv]" in theirs else " "
                for part, tensor in zip(parts, weight.chunk(len(parts)), strict=True):
                    renamed[target.replace("[qkv]", part)] = tensor
                break
        else:
            raise ValueError(f"no name of transformers for {name}")
    return renamed
