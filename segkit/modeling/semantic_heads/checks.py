"""Checks of a semantic head's keys against each other and the backbone, before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

HEAD = "MODEL.SEM_SEG_HEAD"
DEEPLAB_BACKBONE = "build_resnet_deeplab_backbone"
DEEPLAB_DEPTHS = (50, 101, 152)
DEEPLAB_DILATIONS = ((1, 1), (1, 2), (1, 4), (2, 4))  # of res4 and res5: strides 32, 16, 16 and 8
DEEPLAB_STEMS = ("basic", "deeplab")


def check_semantic_head(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
    """Check MODEL.SEM_SEG_HEAD.

    Args:
        cfg: config with segkit's keys.
        input_shape: level -> channels and stride, of the backbone.

    Raises:
        ConfigError: the head or a level is unknown, strides or channels do not fit together, or images are smaller
            than the largest stride.
    """
    options = cfg.MODEL.SEM_SEG_HEAD
    if options.NAME not in SEM_SEG_HEADS_REGISTRY:
        names = sorted(name for name, _ in SEM_SEG_HEADS_REGISTRY)
        remedy = suggest(options.NAME, names, f"choose one of {', '.join(names)}")
        raise ConfigError(f"the semantic head {options.NAME!r} is unknown", where=f"{HEAD}.NAME", remedy=remedy)
    for key, levels in (("IN_FEATURES", options.IN_FEATURES), ("AUXILIARY.IN_FEATURES", options.AUXILIARY.IN_FEATURES)):
        if unknown := [level for level in levels if level not in input_shape]:
            problem = f"expected levels of the backbone, got {unknown[0]!r}"
            raise ConfigError(problem, where=f"{HEAD}.{key}", remedy=f"choose from {', '.join(input_shape)}")
    if not options.IN_FEATURES:
        raise ConfigError("expected levels of the backbone, got none", where=f"{HEAD}.IN_FEATURES")
    strides = sorted(int(input_shape[level].stride) for level in options.IN_FEATURES)
    _check_image_sizes(cfg, strides[-1])
    if options.NAME == "SemSegFPNHead":
        _require(strides[0] >= options.COMMON_STRIDE, "COMMON_STRIDE", f"at most {strides[0]}", options.COMMON_STRIDE)
    if options.NAME in ("DeepLabV3Head", "DeepLabV3PlusHead"):
        _check_deeplab_head(cfg, strides)


def check_deeplab_backbone(cfg: CfgNode) -> None:
    """Check MODEL.RESNETS, if the backbone is that of Detectron2's DeepLab project.

    Args:
        cfg: config with segkit's keys.

    Raises:
        ConfigError: a depth, stem or pair of dilations is not possible.
    """
    if cfg.MODEL.BACKBONE.NAME != DEEPLAB_BACKBONE:
        return
    resnets = cfg.MODEL.RESNETS
    dilations = resnets.RES4_DILATION, resnets.RES5_DILATION
    for key, value, choices in (
        ("DEPTH", resnets.DEPTH, DEEPLAB_DEPTHS),
        ("STEM_TYPE", resnets.STEM_TYPE, DEEPLAB_STEMS),
        ("RES4_DILATION and RES5_DILATION", dilations, DEEPLAB_DILATIONS),
    ):
        if value not in choices:
            problem = f"{DEEPLAB_BACKBONE} expects one of {', '.join(map(str, choices))}, got {value}"
            raise ConfigError(problem, where=f"MODEL.RESNETS.{key}")


def _check_image_sizes(cfg: CfgNode, stride: int) -> None:
    """Raise ConfigError if images may be smaller than the largest stride."""
    inputs, crop = cfg.INPUT, cfg.INPUT.CROP
    least = inputs.MIN_SIZE_TRAIN if isinstance(inputs.MIN_SIZE_TRAIN, (tuple, list)) else [inputs.MIN_SIZE_TRAIN]
    sides = {"INPUT.MIN_SIZE_TRAIN": [*least], "INPUT.MIN_SIZE_TEST": [inputs.MIN_SIZE_TEST]}
    if inputs.LSJ.ENABLED:
        sides["INPUT.LSJ.SIZE"] = [inputs.LSJ.SIZE]
        del sides["INPUT.MIN_SIZE_TRAIN"]
    if crop.ENABLED and crop.TYPE.startswith("absolute"):
        sides["INPUT.CROP.SIZE"] = [*crop.SIZE]
    for key, values in sides.items():
        if small := [value for value in values if 0 < value < stride]:  # 0: the images keep their size
            problem = f"expected at least the stride {stride} of the semantic head's coarsest level, got {small[0]}"
            raise ConfigError(problem, where=key, remedy=f"enlarge the images, or choose finer {HEAD}.IN_FEATURES")


def _check_deeplab_head(cfg: CfgNode, strides: list[int]) -> None:
    """Raise ConfigError for what Detectron2's heads assert, or find at the first image."""
    options, crop = cfg.MODEL.SEM_SEG_HEAD, cfg.INPUT.CROP
    if options.NAME == "DeepLabV3Head":
        _require(len(strides) == 1, "IN_FEATURES", "one level", [*options.IN_FEATURES])
        fits = options.CONVS_DIM == options.ASPP_CHANNELS
        _require(fits, "CONVS_DIM", f"ASPP_CHANNELS, {options.ASPP_CHANNELS}", options.CONVS_DIM)
    else:
        projected = [*options.PROJECT_CHANNELS]
        text = f"{len(strides) - 1} numbers, one for each level but the coarsest"
        _require(len(projected) == len(strides) - 1, "PROJECT_CHANNELS", text, projected)
    _require(strides[0] == options.COMMON_STRIDE, "COMMON_STRIDE", f"{strides[0]}, the finest", options.COMMON_STRIDE)
    _require(len(options.ASPP_DILATIONS) == 3, "ASPP_DILATIONS", "three numbers", [*options.ASPP_DILATIONS])
    kinds = "cross_entropy", "hard_pixel_mining"
    _require(options.LOSS_TYPE in kinds, "LOSS_TYPE", " or ".join(kinds), repr(options.LOSS_TYPE))
    if crop.ENABLED:  # the pooling window is that of the crops
        fits = crop.TYPE == "absolute" and not any(side % strides[-1] for side in crop.SIZE)
        expected = f"absolute sides that are multiples of {strides[-1]}"
        _require(fits, "INPUT.CROP", expected, f"{crop.TYPE} {[*crop.SIZE]}")


def _require(holds: bool, key: str, expected: str, got: Any) -> None:
    if not holds:
        where = key if key.startswith("INPUT") else f"{HEAD}.{key}"
        raise ConfigError(f"expected {expected}, got {got}", where=where)
