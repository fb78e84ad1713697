"""torchvision's DeepLabV3: `deeplabv3_resnet50`, `deeplabv3_resnet101` and `deeplabv3_mobilenet_v3_large`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segkit.engine.importers.base import ConvertedWeights, Shapes, Weights, WeightSource, register_source, rename
from segkit.engine.importers.known_classes import find_by_count
from segkit.engine.importers.torchvision_mask_rcnn import RGB_KEYS

PREDICTOR = "classifier.4.weight"
STEMS = "backbone.conv1.weight", "backbone.0.0.weight"  # of a ResNet, of MobileNetV3
KEYS = {
    **RGB_KEYS,
    "MODEL.BACKBONE.NAME": "build_torchvision_dilated_backbone",
    "MODEL.SEM_SEG_HEAD.NAME": "TorchvisionDeepLabV3Head",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "INPUT.MIN_SIZE_TEST": 520,  # as torchvision evaluates
}


def _matches(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    has_head = PREDICTOR in shapes and "classifier.0.project.0.weight" in shapes
    return has_head and any(name in shapes for name in STEMS)


def _convert(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    kept = {name: weight for name, weight in weights.items() if not name.startswith("aux_classifier.")}
    renamed, source_names = rename(kept, _translate)
    converted = ConvertedWeights(renamed, "voc/semantic_fpn_R50", source_names=source_names)
    reason = "the auxiliary head, which only trains"
    converted.dropped = {name: reason for name in weights if name not in kept}
    is_resnet = STEMS[0] in weights
    own: dict[str, Any] = {"MODEL.BACKBONE.NAME": "build_torchvision_mobilenet_backbone"}
    if is_resnet:
        own = {"MODEL.RESNETS.DEPTH": 101 if "backbone.layer3.22.conv1.weight" in weights else 50}
    converted.keys = {**KEYS, **own}
    converted.channels = len(weights[PREDICTOR])
    converted.classes = find_by_count(0, converted.channels, ("voc_semantic",))
    stride = 8 if is_resnet else 16
    text = f"logits are enlarged by {stride} and cut: equal to torchvision's for sides that are multiples of {stride}"
    converted.notes.append(text)
    return converted


def _translate(name: str) -> str:
    if name.startswith("backbone."):
        return name.replace("backbone.", "backbone.body.", 1)
    return f"sem_seg_head.{name}"


register_source(
    WeightSource(
        "torchvision-deeplab",
        "torchvision's deeplabv3_resnet50, _resnet101 and _mobilenet_v3_large",
        _matches,
        _convert,
    )
)
