"""torchvision's Mask R-CNN with FPN: `maskrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn_v2`, and ResNets of other depths.

torchvision's conventions are expressed by keys of Detectron2 and its anchors by `TorchvisionAnchorGenerator`. What
remains: images are resized with Pillow's filter, not torch's, and masks are pasted at the box, not at whole pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segkit.engine.importers.base import ConvertedWeights, Shapes, Weights, WeightSource, register_source, rename
from segkit.engine.importers.config_keys import infer_config
from segkit.engine.importers.known_classes import COCO_THINGS, load_classes

COCO_ROWS = 91  # of torchvision's COCO weights: the background and ids 1 to 90, of which 10 are unused
EPSILON = 1e-5  # of Detectron2's norms
RGB_KEYS = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}
KEYS = {
    **RGB_KEYS,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.ANCHOR_GENERATOR.NAME": "TorchvisionAnchorGenerator",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}
# Our names of torchvision's, in order; files of torchvision before 0.13 have fewer levels of modules.
PATTERNS: list[tuple[str, Any]] = [
    (r"^backbone\.body\.(conv1|bn1)", r"backbone.bottom_up.stem.\1"),
    (r"^backbone\.body\.layer(\d)", lambda match: f"backbone.bottom_up.res{int(match[1]) + 1}"),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", r".shortcut."),
    (r"\.downsample\.1\.", r".shortcut.norm."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.", lambda match: f"backbone.fpn_lateral{int(match[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.", lambda match: f"backbone.fpn_output{int(match[1]) + 2}."),
    (r"^(backbone\.fpn_\w+\.)0\.", r"\1"),
    (r"^(backbone\.fpn_\w+\.)1\.", r"\1norm."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"proposal_generator.rpn_head.conv.conv\1."),
    (r"^rpn\.head\.conv\.", r"proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", r"proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", r"proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", r"roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", r"roi_heads.box_head.fc2."),
    (r"^roi_heads\.box_head\.(\d)\.0\.", lambda match: f"roi_heads.box_head.conv{int(match[1]) + 1}."),
    (r"^roi_heads\.box_head\.(\d)\.1\.", lambda match: f"roi_heads.box_head.conv{int(match[1]) + 1}.norm."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}."),
    (r"^roi_heads\.mask_head\.(\d)\.1\.", lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.norm."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", r"roi_heads.mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", r"roi_heads.mask_head.predictor."),
]
BOX, MASK = "roi_heads.box_predictor.", "roi_heads.mask_head.predictor"
REMAINING = [
    "images are resized by Pillow's bilinear filter, which smooths, torchvision's does not",
    "masks are pasted at the exact box; torchvision rounds the box to whole pixels",
]
BOX_FC = re.compile(r"roi_heads\.box_head\.(\d+)\.(weight|bias)")


def _matches(shapes: Shapes, _entries: Mapping[str, Any]) -> bool:
    needed = ("backbone.body.conv1.weight", "rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight")
    return all(name in shapes for name in needed)


def _convert(weights: Weights, _entries: Mapping[str, Any]) -> ConvertedWeights:
    is_deep = "rpn.head.conv.1.0.weight" in weights
    layers = sorted({int(match[1]) for name in weights if (match := BOX_FC.fullmatch(name))})
    fc_names = {layer: number for number, layer in enumerate(layers, 1)}

    def translate(name: str) -> str:
        if match := BOX_FC.fullmatch(name):
            return f"roi_heads.box_head.fc{fc_names[int(match[1])]}.{match[2]}"
        for pattern, replacement in PATTERNS:
            name = re.sub(pattern, replacement, name)
        return name if is_deep else name.replace("rpn_head.conv.conv0.", "rpn_head.conv.")

    renamed, source_names = rename(weights, translate)
    converted = ConvertedWeights(renamed, source_names=source_names)
    _reorder_classes(converted)
    shapes = {name: tuple(weight.shape) for name, weight in converted.weights.items()}
    converted.recipe, keys = infer_config(shapes, "")
    converted.keys = {**keys, **KEYS}
    if keys["MODEL.RESNETS.NORM"] == "FrozenBN":
        _undo_epsilon(converted)
    converted.notes += REMAINING
    return converted


def _reorder_classes(converted: ConvertedWeights) -> None:
    """The background is torchvision's first class and Detectron2's last, and has boxes and masks only in torchvision.

    Of COCO's 90 ids, the 80 that are used are kept: the others never had an object in training.
    """
    weights = converted.weights
    rows = len(weights[f"{BOX}cls_score.bias"])
    classes = list(range(1, rows))
    if rows == COCO_ROWS:
        classes = [category.category_id for category in load_classes(COCO_THINGS).things]
        converted.classes = COCO_THINGS
        converted.notes.append("the 10 ids of COCO without a class are left out: scores rise by their small share")
    converted.things = len(classes)
    box_rows = [4 * index + side for index in classes for side in range(4)]
    for end in ("weight", "bias"):
        weights[f"{BOX}cls_score.{end}"] = weights[f"{BOX}cls_score.{end}"][[*classes, 0]]
        weights[f"{BOX}bbox_pred.{end}"] = weights[f"{BOX}bbox_pred.{end}"][box_rows]
        if f"{MASK}.{end}" in weights:
            weights[f"{MASK}.{end}"] = weights[f"{MASK}.{end}"][classes]


def _undo_epsilon(converted: ConvertedWeights) -> None:
    """Frozen norms are those of the COCO weights, or fine-tuned from them: torchvision runs them without an epsilon."""
    for name in [name for name in converted.weights if name.endswith(".norm.running_var")]:
        variance, weight = converted.weights[name], name.replace("running_var", "weight")
        converted.weights[weight] = converted.weights[weight] * ((variance + EPSILON) / variance).sqrt()
    converted.notes.append(
        "the norms are frozen: taken as torchvision's COCO weights, which are run without an epsilon"
    )


register_source(WeightSource("torchvision-maskrcnn", "torchvision's maskrcnn_resnet50_fpn and _v2", _matches, _convert))
