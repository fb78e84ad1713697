"""Mask2Former: queries that each find one segment, for instance, semantic and panoptic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import nn

from segkit.config import with_segkit_keys
from segkit.modeling.queries import QueryOutputs
from segkit.modeling.queries.masked_decoder import MaskedAttentionDecoder
from segkit.modeling.queries.pixel_decoder import GROUPS, DeformablePixelDecoder
from segkit.modeling.queries.segmentor import QuerySegmentor, register_query_architecture
from segkit.utils.errors import ConfigError

STRIDE = 32  # of the coarsest level, to whose multiples images are padded

register_query_architecture("Mask2Former")


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


@META_ARCH_REGISTRY.register()
class Mask2Former(QuerySegmentor):
    """Mask2Former (Cheng et al. 2022), with the names of weights of its authors' MaskFormer class.

    Args:
        backbone: images (N, C, H, W) -> levels.
        sem_seg_head: levels -> a list of QueryOutputs.
        **segmentor: criterion, pixel_mean, pixel_std, stuff_ids, thing_ids, ..., as in QuerySegmentor.
    """

    @configurable
    def __init__(self, *, backbone: Backbone, sem_seg_head: nn.Module, **segmentor: Any) -> None:
        super().__init__(**segmentor)
        self.backbone, self.sem_seg_head = backbone, sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config of Detectron2; segkit's keys may be missing.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: the class count is open, the backbone lacks a level, or the channels do not fit the heads.
        """
        cfg = with_segkit_keys(cfg)
        arguments = super().from_config(cfg)
        backbone = build_backbone(cfg)
        arguments["size_divisibility"] = max(STRIDE, backbone.size_divisibility)
        return {**arguments, "backbone": backbone, "sem_seg_head": build_mask2former_head(cfg, backbone)}

    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        """See base class."""
        outputs: list[QueryOutputs] = self.sem_seg_head(self.backbone(images))
        return outputs


def build_mask2former_head(cfg: CfgNode, backbone: Backbone) -> Mask2FormerHead:
    """Build the head of MODEL.MASK2FORMER for a backbone.

    Args:
        cfg: a config with segkit's keys.
        backbone: whose levels it takes.

    Returns:
        The head.

    Raises:
        ConfigError: the backbone lacks a level, or the channels do not fit the heads.
    """
    options, shapes = cfg.MODEL.MASK2FORMER, backbone.output_shape()
    if missing := [name for name in options.IN_FEATURES if name not in shapes]:
        problem = f"the backbone has the levels {', '.join(shapes)}, got {', '.join(missing)}"
        raise ConfigError(problem, where="MODEL.MASK2FORMER.IN_FEATURES", remedy="set it to four of its levels")
    if options.CHANNELS % GROUPS or options.CHANNELS % options.HEADS:
        problem = f"expected a multiple of {GROUPS} and of MODEL.MASK2FORMER.HEADS {options.HEADS}"
        raise ConfigError(f"{problem}, got {options.CHANNELS}", where="MODEL.MASK2FORMER.CHANNELS")
    pixel_decoder = DeformablePixelDecoder(
        {name: shapes[name] for name in options.IN_FEATURES},
        options.CHANNELS,
        layers=options.ENCODER_LAYERS,
        heads=options.HEADS,
        feedforward=options.ENCODER_FEEDFORWARD,
        norm=options.NORM,
    )
    predictor = MaskedAttentionDecoder(
        cfg.MODEL.QUERIES.NUM_CLASSES,
        cfg.MODEL.QUERIES.NUM_QUERIES,
        options.CHANNELS,
        layers=options.DECODER_LAYERS,
        heads=options.HEADS,
        feedforward=options.DECODER_FEEDFORWARD,
    )
    return Mask2FormerHead(pixel_decoder, predictor)
