"""timm's networks with and without a pyramid, by the names of MODEL.BACKBONE.NAME."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from segkit.config import with_segkit_keys
from segkit.modeling.backbones.bifpn import BiFPN
from segkit.modeling.backbones.simple_pyramid import SimplePyramid
from segkit.modeling.backbones.timm_network import TimmBackbone
from segkit.normalization import compute_normalization
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

PYRAMID_STRIDES = (4, 8, 16, 32)


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the network of MODEL.TIMM without a pyramid: res1 to res5, as far as it has them."""
    cfg = with_segkit_keys(cfg)
    options = cfg.MODEL.TIMM
    backbone = TimmBackbone(
        options.NAME,
        channels=input_shape.channels or 3,
        image_format=cfg.INPUT.FORMAT,
        norm=options.NORM,
        output_stride=options.OUTPUT_STRIDE,
        patch_size=options.PATCH_SIZE,
        image_size=options.IMAGE_SIZE,
        drop_path=options.DROP_PATH,
    )
    largest = max(cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TEST)
    if backbone.square_size and largest > backbone.square_size:
        problem = f"timm's {options.NAME} takes images of {backbone.square_size} pixels only, INPUT allows {largest}"
        remedy = f"set INPUT.MAX_SIZE_TRAIN and MAX_SIZE_TEST to {backbone.square_size}, or MODEL.TIMM.IMAGE_SIZE"
        raise ConfigError(problem, where="MODEL.TIMM.NAME", remedy=remedy)
    _log_normalization(cfg, backbone)
    return backbone


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the network of MODEL.TIMM under Detectron2's FPN, with p2 to p6."""
    bottom_up = build_timm_backbone(cfg, input_shape)
    features = select_features(bottom_up, cfg.MODEL.FPN.IN_FEATURES)
    top_block = LastLevelMaxPool()
    top_block.in_feature = features[-1].replace("res", "p")
    return FPN(
        bottom_up=bottom_up,
        in_features=features,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
        square_pad=bottom_up.square_size,
    )


@BACKBONE_REGISTRY.register()
def build_timm_bifpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> BiFPN:
    """Build the network of MODEL.TIMM under a BiFPN, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    bottom_up = build_timm_backbone(cfg, input_shape)
    return BiFPN(
        bottom_up,
        select_features(bottom_up, cfg.MODEL.FPN.IN_FEATURES),
        cfg.MODEL.FPN.OUT_CHANNELS,
        repeats=cfg.MODEL.BIFPN.REPEATS,
        norm=cfg.MODEL.FPN.NORM,
        square_pad=bottom_up.square_size,
    )


@BACKBONE_REGISTRY.register()
def build_timm_simple_pyramid_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SimplePyramid:
    """Build the plain ViT of MODEL.TIMM under ViTDet's pyramid, with p2 to p6."""
    net = build_timm_backbone(cfg, input_shape)
    return SimplePyramid(net, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM or "LN", square_pad=net.square_size)


def select_features(bottom_up: TimmBackbone, names: Sequence[str] = ()) -> list[str]:
    """Choose the levels that a pyramid is built on.

    Args:
        bottom_up: the network.
        names: MODEL.FPN.IN_FEATURES; empty: the levels of stride 4, 8, 16 and 32.

    Returns:
        The names of the levels, finest first.

    Raises:
        ConfigError: the network lacks a level, or the strides do not double from level to level.
    """
    strides = {name: shape.stride for name, shape in bottom_up.output_shape().items()}
    features = list(names) or [name for name, stride in strides.items() if stride in PYRAMID_STRIDES]
    chosen = [strides.get(name, 0) for name in features]
    if len(chosen) > 1 and 0 not in chosen and all(b == 2 * a for a, b in pairwise(chosen)):
        return features
    stated = ", ".join(f"{name} (stride {stride})" for name, stride in strides.items())
    problem = f"a pyramid needs levels whose strides double; {bottom_up.name} has {stated}, chosen are {features}"
    remedy = "set MODEL.FPN.IN_FEATURES to such levels, or choose another network"
    if len(strides) == 1:
        remedy = "set MODEL.BACKBONE.NAME build_timm_simple_pyramid_backbone, which is for plain ViTs"
    elif bottom_up.size_divisibility < max(PYRAMID_STRIDES):
        remedy = "set MODEL.TIMM.OUTPUT_STRIDE 32, or MODEL.BACKBONE.NAME build_timm_backbone"
    raise ConfigError(problem, where="MODEL.FPN.IN_FEATURES", remedy=remedy)


def _log_normalization(cfg: CfgNode, backbone: TimmBackbone) -> None:
    """Say which constants are used, and warn if they are not those of timm's weights."""
    mean, std = [*cfg.MODEL.PIXEL_MEAN], [*cfg.MODEL.PIXEL_STD]
    text = "timm's %s: %d channels in the order %s, MODEL.PIXEL_MEAN %s, PIXEL_STD %s"
    logger.info(text, backbone.name, backbone.channels, cfg.INPUT.FORMAT, mean, std)
    if len((expected := compute_normalization(cfg))[0]) == backbone.channels and expected != (mean, std):
        text = "timm's weights of %s expect MODEL.PIXEL_MEAN %s, PIXEL_STD %s; the config has others"
        logger.warning(text, backbone.name, *expected)
