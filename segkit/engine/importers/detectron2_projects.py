"""Detectron2's projects PointRend, DeepLab and Panoptic-DeepLab: their names are ours, but for old PointRend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segkit.engine.importers.base import ConvertedWeights, Shapes, Weights, WeightSource, register_source, rename
from segkit.engine.importers.config_keys import count_classes, infer_config
from segkit.engine.importers.known_classes import COCO_THINGS, find_by_count

POINT_HEAD = "roi_heads.mask_head.point_head."
OLD_POINT_REND = {  # the published files have these names
    "roi_heads.mask_point_head.": POINT_HEAD,
    "roi_heads.mask_coarse_head.": "roi_heads.mask_head.coarse_head.",
    ".coarse_mask_fc": ".fc",
}
ASPP, OFFSETS = "sem_seg_head.decoder.res5.project_conv.", "ins_embed_head."
ASPP_OF_V3 = "sem_seg_head.aspp."
KEYS_OF_V3 = {  # what Detectron2's Base-DeepLabV3-OS16-Semantic has in the place of DeepLabV3+'s decoder
    "MODEL.RESNETS.OUT_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3Head",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 16,
}
DEPTHS = {5: 50, 22: 101, 35: 152}  # last block of res4 -> MODEL.RESNETS.DEPTH
DEPTHWISE = ".depthwise.weight"
STEM = "backbone.bottom_up.stem.conv1.weight"
# (channels of the semantic head, whether its convolutions are depthwise separable) -> recipe
PANOPTIC_RECIPES = {
    (19, False): "cityscapes/panoptic_deeplab_R52",
    (19, True): "cityscapes/panoptic_deeplab_R52_dsconv",
    (133, True): "coco/panoptic_deeplab_R52_200k",
}
CONSTANTS = ("proposal_generator.anchor_generator.", "pixel_mean", "pixel_std")


def _has(shapes: Shapes, beginning: str) -> bool:
    return any(name.startswith(beginning) for name in shapes)


def _is_point_rend(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return STEM in shapes and (_has(shapes, POINT_HEAD) or _has(shapes, "roi_heads.mask_point_head."))


def _is_deeplab(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return (_has(shapes, ASPP) or _has(shapes, ASPP_OF_V3)) and not _has(shapes, OFFSETS)


def _is_panoptic_deeplab(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    return _has(shapes, OFFSETS)


def _convert_point_rend(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    weights, source_names = rename(weights, _translate)
    converted, shapes = _drop_constants(weights)
    converted.source_names = source_names
    _, keys = infer_config(shapes, "")
    converted.recipe = "coco/point_rend_R50_FPN_3x"
    own = ("MODEL.RESNETS.", "MODEL.FPN.", "MODEL.ROI_BOX_HEAD.", "MODEL.PIXEL_STD")
    converted.keys = {key: value for key, value in keys.items() if key.startswith(own)}
    converted.things, _ = count_classes(shapes)
    converted.classes = find_by_count(converted.things, 0, (COCO_THINGS,))
    return converted


def _translate(name: str) -> str:
    for old, ours in OLD_POINT_REND.items():
        name = name.replace(old, ours)
    return name


def _convert_deeplab(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    converted, shapes = _drop_constants(weights)
    _, converted.channels = count_classes(shapes)
    converted.recipe = "cityscapes/deeplab_v3_plus_R103"
    blocks = [block for block in DEPTHS if f"backbone.res4.{block}.conv1.weight" in shapes]
    converted.keys = {"MODEL.RESNETS.DEPTH": DEPTHS[max(blocks)]} if blocks else {}
    if _has(shapes, ASPP_OF_V3):
        converted.keys |= KEYS_OF_V3
        converted.notes.append("weights do not say the output stride: set to 16 (MODEL.SEM_SEG_HEAD.COMMON_STRIDE)")
    converted.classes = find_by_count(0, converted.channels, ("cityscapes_semantic",))
    return converted


def _convert_panoptic_deeplab(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    converted, shapes = _drop_constants(weights)
    _, converted.channels = count_classes(shapes)
    is_separable = any(name.endswith(DEPTHWISE) for name in shapes)
    default = PANOPTIC_RECIPES[19, is_separable]
    converted.recipe = PANOPTIC_RECIPES.get((converted.channels, is_separable), default)
    converted.classes = find_by_count(0, converted.channels, ("cityscapes_panoptic", "coco_all"))
    return converted


def _drop_constants(weights: Weights) -> tuple[ConvertedWeights, Shapes]:
    kept = {name: weight for name, weight in weights.items() if not name.startswith(CONSTANTS)}
    dropped = {name: "a constant that the config sets" for name in weights if name not in kept}
    return ConvertedWeights(kept, dropped=dropped), {name: tuple(weight.shape) for name, weight in kept.items()}


for source in (
    WeightSource("point-rend", "Detectron2's PointRend", _is_point_rend, _convert_point_rend),
    WeightSource("deeplab", "Detectron2's DeepLabV3 and V3+", _is_deeplab, _convert_deeplab),
    WeightSource("panoptic-deeplab", "Detectron2's Panoptic-DeepLab", _is_panoptic_deeplab, _convert_panoptic_deeplab),
):
    register_source(source)
