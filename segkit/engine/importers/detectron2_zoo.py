"""Detectron2's model zoo: R-CNN, RetinaNet, Panoptic FPN, semantic FPN, and ImageNet's ResNets; Caffe2's names too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

from segkit.engine.importers.base import (
    BOTTOM_UP,
    ConvertedWeights,
    Shapes,
    Weights,
    WeightSource,
    register_source,
    rename,
)
from segkit.engine.importers.config_keys import count_classes, infer_config
from segkit.engine.importers.known_classes import COCO_CLASSES, find_by_count
from segkit.utils.errors import CheckpointError

CAFFE2 = "Caffe2"  # `__author__` of files without Detectron2's entries
CAFFE2_STEMS = ("conv1_w", "res_conv1_bn_s")  # both of a ResNet's first convolution
STEMS = tuple(f"{prefix}stem.conv1.weight" for prefix in ("", "backbone.", BOTTOM_UP))
BARE = ("stem.", "res2.", "res3.", "res4.", "res5.")  # beginnings of names without the model's prefix
CLASSIFIERS = ("stem.fc.", "linear.", "fc1000.")
CONSTANTS = ("proposal_generator.anchor_generator.", "pixel_mean", "pixel_std", "anchor_generator.")
OTHERS = ("sem_seg_head.predictor.query_", "sem_seg_head.predictor.static_query.")  # heads of other sources
ZOO_CLASSES = ("lvis_v1", "lvis_v0.5", "cityscapes_things", "voc")  # only of files that the zoo's authors have signed


def _matches(shapes: Shapes, entries: Mapping[str, Any]) -> bool:
    if entries.get("__author__") == CAFFE2:
        return any(name in shapes for name in CAFFE2_STEMS)
    is_other = any(name.startswith(OTHERS) for name in shapes)
    return any(name in shapes for name in STEMS) and not is_other


def _convert(weights: Weights, entries: Mapping[str, Any]) -> ConvertedWeights:
    converted = ConvertedWeights({})
    if entries.get("__author__") == CAFFE2:
        weights, old_names = convert_c2_detectron_names(weights)
        converted.notes.append("Caffe2's names were converted by Detectron2's rules")
    else:
        old_names = {}
    for name in [name for name in weights if name.startswith(CLASSIFIERS)]:
        converted.dropped[old_names.get(name, name)] = "the classifier of ImageNet"
        del weights[name]
    for name in [name for name in weights if name.startswith(CONSTANTS)]:
        converted.dropped[old_names.get(name, name)] = "a constant that the config sets"
        del weights[name]
    converted.weights, new_names = rename(weights, _add_prefix)
    converted.source_names = {name: old_names.get(old, old) for name, old in new_names.items()}
    if any("_bn_" in name for name in old_names.values()):
        _fill_statistics(converted)
    shapes = {name: tuple(weight.shape) for name, weight in converted.weights.items()}
    try:
        converted.recipe, converted.keys = infer_config(shapes, "")
    except CheckpointError as error:
        converted.unknown = error
    if all(name.startswith(BOTTOM_UP) for name in shapes):
        _describe_backbone(converted, entries)
        return converted
    converted.things, converted.channels = count_classes(shapes)
    is_signed = "model zoo" in str(entries.get("__author__", "")).lower()
    likely = (*COCO_CLASSES, *(ZOO_CLASSES if is_signed else ()))
    converted.classes = find_by_count(converted.things, converted.channels, likely)
    if "MODEL.RESNETS.STRIDE_IN_1X1" in converted.keys:
        converted.notes.append(
            "weights do not say if the stride is in the first 1x1 convolution of a block: set as in the zoo "
            f"(MODEL.RESNETS.STRIDE_IN_1X1 {converted.keys['MODEL.RESNETS.STRIDE_IN_1X1']})"
        )
    return converted


def _add_prefix(name: str) -> str:
    if name.startswith(BARE):
        return BOTTOM_UP + name
    return f"backbone.{name}" if name.startswith("fpn_") else name


def _fill_statistics(converted: ConvertedWeights) -> None:
    """MSRA's norms are merged: mean 0 and variance 1, which Detectron2 fills in when it loads them."""
    weights = converted.weights
    if any(name.endswith("running_mean") for name in weights):
        return
    norms = [name for name in weights if name.startswith(BOTTOM_UP) and name.endswith(".norm.weight")]
    for name in norms:
        stem = name.removesuffix("weight")
        weights[f"{stem}running_mean"] = torch.zeros_like(weights[name])
        weights[f"{stem}running_var"] = torch.ones_like(weights[name])
    converted.notes.append("no running statistics: the norms are merged, with mean 0 and variance 1")


def _describe_backbone(converted: ConvertedWeights, entries: Mapping[str, Any]) -> None:
    """Weights of ImageNet: a start of a training."""
    if entries.get("__author__") == "torchvision":
        converted.keys |= {
            "MODEL.RESNETS.STRIDE_IN_1X1": False,
            "INPUT.FORMAT": "RGB",
            "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
            "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        }


register_source(WeightSource("detectron2", "Detectron2's R-CNN family, RetinaNet and its ResNets", _matches, _convert))
