"""Detectron2's RegNet, Swin, ViT and MViT by name: it offers them as classes of Python configs only.

The names of the weights are those of its model zoo: `bottom_up.*` under an FPN, `net.*` under ViTDet's pyramid.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, MViT, SwinTransformer, ViT
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem
from torch import nn

from segkit.config import with_segkit_keys
from segkit.modeling.backbones.simple_pyramid import SimplePyramid
from segkit.utils.errors import ConfigError

RGB = 3
LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # of the model zoo's ViT and MViT
STAGES = {"regnet": ("s1", "s2", "s3", "s4"), "swin": ("p0", "p1", "p2", "p3")}


@BACKBONE_REGISTRY.register()
def build_regnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the RegNet of MODEL.REGNET under Detectron2's FPN, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    if (input_shape.channels or RGB) != RGB:
        problem = f"Detectron2's RegNet takes images of {RGB} channels, got {input_shape.channels}"
        raise ConfigError(problem, where="MODEL.PIXEL_MEAN", remedy="choose a RegNet of timm, which takes any number")
    options = cfg.MODEL.REGNET
    regnet = RegNet(
        stem_class=SimpleStem,
        stem_width=options.STEM_WIDTH,
        block_class=ResBottleneckBlock,
        depth=options.DEPTH,
        w_a=options.W_A,
        w_0=options.W_0,
        w_m=options.W_M,
        group_width=options.GROUP_WIDTH,
        se_ratio=options.SE_RATIO,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=options.NORM,
        out_features=[*STAGES["regnet"]],
    )
    return _build_fpn(cfg, regnet, STAGES["regnet"])


@BACKBONE_REGISTRY.register()
def build_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the Swin of MODEL.SWIN under Detectron2's FPN, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    options = cfg.MODEL.SWIN
    swin = SwinTransformer(
        in_chans=input_shape.channels or RGB,
        embed_dim=options.EMBED_DIM,
        depths=[*options.DEPTHS],
        num_heads=[*options.NUM_HEADS],
        window_size=options.WINDOW_SIZE,
        drop_path_rate=options.DROP_PATH,
    )
    return _build_fpn(cfg, swin, STAGES["swin"])


@BACKBONE_REGISTRY.register()
def build_mvit_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the MViTv2 of MODEL.MVIT under Detectron2's FPN, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    options = cfg.MODEL.MVIT
    mvit = MViT(
        img_size=options.IMAGE_SIZE,
        in_chans=input_shape.channels or RGB,
        embed_dim=options.EMBED_DIM,
        depth=options.DEPTH,
        num_heads=options.NUM_HEADS,
        last_block_indexes=[*options.LAST_BLOCK_INDEXES],
        norm_layer=LAYER_NORM,
        drop_path_rate=options.DROP_PATH,
    )
    return _build_fpn(cfg, mvit, mvit.output_shape())


@BACKBONE_REGISTRY.register()
def build_vit_simple_pyramid_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SimplePyramid:
    """Build the ViT of MODEL.VIT under ViTDet's pyramid, with p2 to p6."""
    cfg = with_segkit_keys(cfg)
    options = cfg.MODEL.VIT
    blocks = {*range(options.DEPTH)}
    if unknown := sorted({*options.GLOBAL_BLOCKS} - blocks):
        problem = f"expected numbers of blocks below MODEL.VIT.DEPTH {options.DEPTH}, got {unknown}"
        raise ConfigError(problem, where="MODEL.VIT.GLOBAL_BLOCKS")
    vit = ViT(
        img_size=options.IMAGE_SIZE,
        in_chans=input_shape.channels or RGB,
        embed_dim=options.EMBED_DIM,
        depth=options.DEPTH,
        num_heads=options.NUM_HEADS,
        drop_path_rate=options.DROP_PATH,
        norm_layer=LAYER_NORM,
        window_size=options.WINDOW_SIZE,
        window_block_indexes=sorted(blocks - {*options.GLOBAL_BLOCKS}),
        use_rel_pos=True,
    )
    return SimplePyramid(vit, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM or "LN")


def _build_fpn(cfg: CfgNode, bottom_up: Backbone, features: Any) -> FPN:
    """Build Detectron2's FPN over MODEL.FPN.IN_FEATURES, or all levels."""
    known = [*features]
    names = cfg.MODEL.FPN.IN_FEATURES or known
    if unknown := [name for name in names if name not in known]:
        problem = f"the backbone has the levels {', '.join(known)}, got {', '.join(unknown)}"
        raise ConfigError(problem, where="MODEL.FPN.IN_FEATURES", remedy="set it to such levels, or to [] for all")
    return FPN(
        bottom_up=bottom_up,
        in_features=[*names],
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
