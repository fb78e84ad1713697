"""From the names and shapes of Detectron2's networks to the config that builds them."""

from __future__ import annotations

import math
import re
import statistics
from typing import Any

from segkit.engine.importers.base import BOTTOM_UP, Shapes
from segkit.utils.errors import CheckpointError

INSTANCE_RECIPE = "coco/mask_rcnn_R50_FPN_3x"
PANOPTIC_RECIPE = "coco/panoptic_rcnn_R50_FPN_3x"
# (blocks of res2 to res5, whether a block has three convolutions) -> MODEL.RESNETS.DEPTH
DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
STEM = BOTTOM_UP + "stem.conv1"
# Shapes of a ResNet, for those that a file lacks, which the comparison with the model then names.
USUAL_SHAPES = {
    f"{STEM}.weight": (64, 3, 7, 7),
    f"{BOTTOM_UP}res2.0.conv1.weight": (64, 64, 1, 1),
    f"{BOTTOM_UP}res2.0.conv2.weight": (64, 64, 3, 3),
    f"{BOTTOM_UP}res2.0.conv3.weight": (256, 64, 1, 1),
}
BOX_HEAD, MASK_HEAD, SEMANTIC_HEAD = "roi_heads.box_head", "roi_heads.mask_head", "sem_seg_head"
SINGLE_LEVEL, RES5_HEAD = "backbone.", "roi_heads.res5."  # of networks without FPN
SCORES = tuple(f"roi_heads.box_predictor.{stage}cls_score.weight" for stage in ("", "0."))
RETINANET_SCORES, RETINANET_BOXES = "head.cls_score.weight", "head.bbox_pred.weight"
SIZES, RATIOS = [32, 64, 128, 256, 512], 3  # of anchors, in pixels, and their shapes
RPN_HEAD = "proposal_generator.rpn_head"
REMEDY = "give the config that the weights were trained with, by --config-file"
PIXEL_STD_OF_RESNEXT = [57.375, 57.12, 58.395]  # BGR; Detectron2's X-101-32x8d


def infer_config(shapes: Shapes, where: object) -> tuple[str, dict[str, Any]]:
    """Find the recipe and the keys of a ResNet and the heads of Detectron2's R-CNN family or of RetinaNet.

    Args:
        shapes: name -> shape, named as in Detectron2's models.
        where: the file, for messages.

    Returns:
        (recipe, config key -> value). Class counts are left out.

    Raises:
        CheckpointError: the network is of another family, or of a depth that is unknown.
    """
    is_single_level = f"{SINGLE_LEVEL}stem.conv1.weight" in shapes
    if is_single_level:
        shapes = {_name_as_with_fpn(name): shape for name, shape in shapes.items()}
    has_heads = any(not name.startswith("backbone.") for name in shapes)
    has_known = any(name in shapes for name in (*SCORES, RETINANET_SCORES, f"{SEMANTIC_HEAD}.predictor.weight"))
    is_other = any(name.startswith("roi_heads.keypoint_head.") for name in shapes) or (has_heads and not has_known)
    if is_other or not any(name.startswith(BOTTOM_UP) for name in shapes):
        problem = "expected a ResNet with heads for boxes, masks or semantic classes, got another network"
        raise CheckpointError(problem, where=where, remedy=REMEDY)
    keys = infer_resnet(shapes, where)
    if RETINANET_SCORES in shapes:
        return INSTANCE_RECIPE, {**keys, **_infer_retinanet(shapes)}
    if is_single_level:
        keys |= _infer_single_level(shapes)
    if any(name in shapes for name in SCORES):
        keys |= _infer_detector(shapes, where, anchors=len(SIZES) * RATIOS if is_single_level else RATIOS)
    has_semantics = f"{SEMANTIC_HEAD}.predictor.weight" in shapes
    if has_semantics:
        keys |= _infer_semantic_head(shapes)
        if not any(key.startswith("roi_heads.") for key in shapes):
            keys["MODEL.META_ARCHITECTURE"] = "SemanticSegmentor"
    return PANOPTIC_RECIPE if has_semantics else INSTANCE_RECIPE, keys


def _name_as_with_fpn(name: str) -> str:
    """C4 and DC5 have the ResNet itself as the backbone, C4 with its last stage in the ROI heads."""
    if name.startswith(RES5_HEAD):
        return f"{BOTTOM_UP}res5.{name.removeprefix(RES5_HEAD)}"
    return f"{BOTTOM_UP}{name.removeprefix(SINGLE_LEVEL)}" if name.startswith(SINGLE_LEVEL) else name


def _infer_single_level(shapes: Shapes) -> dict[str, Any]:
    """What Detectron2's Base-RCNN-C4 and Base-RCNN-DilatedC5 have in the place of the FPN."""
    is_c4 = f"{BOX_HEAD}.fc1.weight" not in shapes
    level = "res4" if is_c4 else "res5"
    keys: dict[str, Any] = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": [level],
        "MODEL.ANCHOR_GENERATOR.SIZES": [SIZES],
        "MODEL.RPN.IN_FEATURES": [level],
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
        "MODEL.ROI_HEADS.IN_FEATURES": [level],
    }
    return keys if is_c4 else {**keys, "MODEL.RESNETS.RES5_DILATION": 2}


def _infer_retinanet(shapes: Shapes) -> dict[str, Any]:
    """What Detectron2's Base-RetinaNet has in the place of region proposals and ROI heads."""
    levels = ["res3", "res4", "res5"]
    return {
        "MODEL.META_ARCHITECTURE": "RetinaNet",
        "MODEL.MASK_ON": False,
        "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": levels,
        "MODEL.FPN.IN_FEATURES": levels,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[size * 2 ** (third / 3) for third in range(3)] for size in SIZES],
        "MODEL.RETINANET.NUM_CONVS": count_layers(shapes, "head.cls_subnet.{}.weight", step=2),
        "MODEL.RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
        "MODEL.RETINANET.IOU_LABELS": [0, -1, 1],
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
        "SOLVER.BASE_LR": 0.01,
    }


def infer_resnet(shapes: Shapes, where: object) -> dict[str, Any]:
    """Find MODEL.RESNETS and MODEL.FPN.

    Args:
        shapes: name -> shape, named as in Detectron2's models with an FPN.
        where: the file, for messages.

    Returns:
        Config key -> value.

    Raises:
        CheckpointError: the backbone is no ResNet of a known depth.
    """
    blocks = tuple(count_layers(shapes, f"{BOTTOM_UP}res{stage}.{{}}.") for stage in (2, 3, 4, 5))
    is_bottleneck = any(name.startswith(BOTTOM_UP) and name.endswith(".conv3.weight") for name in shapes)
    if (blocks, is_bottleneck) not in DEPTHS or not any(name.startswith(STEM) for name in shapes):
        problem = f"expected a ResNet, got a backbone with {'-'.join(map(str, blocks))} blocks"
        raise CheckpointError(problem, where=where, remedy=REMEDY)
    norm = _find_norm_of_backbone(shapes)
    shapes = {**shapes, **{n: shape for n, shape in USUAL_SHAPES.items() if len(shapes.get(n, ())) != len(shape)}}
    first, second = shapes[f"{BOTTOM_UP}res2.0.conv1.weight"], shapes[f"{BOTTOM_UP}res2.0.conv2.weight"]
    keys = {
        "MODEL.RESNETS.DEPTH": DEPTHS[blocks, is_bottleneck],
        "MODEL.RESNETS.NORM": norm,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": shapes[f"{STEM}.weight"][0],
        "MODEL.RESNETS.RES2_OUT_CHANNELS": shapes[f"{BOTTOM_UP}res2.0.conv{3 if is_bottleneck else 2}.weight"][0],
    }
    if is_bottleneck:
        keys["MODEL.RESNETS.NUM_GROUPS"] = first[0] // second[1]
        keys["MODEL.RESNETS.WIDTH_PER_GROUP"] = second[1]
        # Not visible in weights. MSRA's ResNets, from which most of the zoo starts, have the stride in the first 1x1.
        is_msra = norm in ("FrozenBN", "BN") and first[0] == second[1]
        keys["MODEL.RESNETS.STRIDE_IN_1X1"] = is_msra
        if first[0] != second[1]:
            keys["MODEL.PIXEL_STD"] = PIXEL_STD_OF_RESNEXT
    deformable = [f"{BOTTOM_UP}res{stage}.0.conv2_offset.weight" for stage in (2, 3, 4, 5)]
    if any(key in shapes for key in deformable):
        keys["MODEL.RESNETS.DEFORM_ON_PER_STAGE"] = [key in shapes for key in deformable]
        offsets = next(shapes[key][0] for key in deformable if key in shapes)
        is_modulated = offsets % 27 == 0  # 3x3 taps of 2 offsets and a weight each, without weights 18
        keys["MODEL.RESNETS.DEFORM_MODULATED"] = is_modulated
        keys["MODEL.RESNETS.DEFORM_NUM_GROUPS"] = offsets // (27 if is_modulated else 18)
    if "backbone.fpn_output5.weight" in shapes:
        keys["MODEL.FPN.OUT_CHANNELS"] = shapes["backbone.fpn_output5.weight"][0]
        keys["MODEL.FPN.NORM"] = _find_norm(shapes, "backbone.fpn_output5")
    return keys


def _infer_detector(shapes: Shapes, where: object, anchors: int) -> dict[str, Any]:
    """MODEL.RPN and the ROI heads."""
    got = shapes.get(f"{RPN_HEAD}.objectness_logits.weight", (0,))[0]
    if got != anchors:
        problem = f"expected an RPN with {anchors} anchors at each pixel of a level, got {got}"
        raise CheckpointError(problem, where=where, remedy=REMEDY)
    is_cascade = f"{BOX_HEAD}.0.fc1.weight" in shapes
    predictor = "roi_heads.box_predictor" + (".0" if is_cascade else "")
    class_count = shapes[f"{predictor}.cls_score.weight"][0] - 1
    keys: dict[str, Any] = {
        "MODEL.META_ARCHITECTURE": "PanopticRCNN"
        if f"{SEMANTIC_HEAD}.predictor.weight" in shapes
        else "GeneralizedRCNN",
        "MODEL.RPN.CONV_DIMS": [-1] * max(1, count_layers(shapes, f"{RPN_HEAD}.conv.conv{{}}.weight")),
        "MODEL.ROI_HEADS.NAME": _find_roi_heads(shapes),
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": class_count > 1 and shapes[f"{predictor}.bbox_pred.weight"][0] == 4,
        **_infer_box_head(shapes, BOX_HEAD + (".0" if is_cascade else "")),
        "MODEL.MASK_ON": f"{MASK_HEAD}.predictor.weight" in shapes,
    }
    if keys["MODEL.MASK_ON"]:
        convolutions = count_layers(shapes, f"{MASK_HEAD}.mask_fcn{{}}.weight", first=1)
        keys |= {
            "MODEL.ROI_MASK_HEAD.NUM_CONV": convolutions,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": shapes[f"{MASK_HEAD}.deconv.weight"][1],
            "MODEL.ROI_MASK_HEAD.NORM": _find_norm(shapes, f"{MASK_HEAD}.mask_fcn1"),
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": class_count > 1
            and shapes[f"{MASK_HEAD}.predictor.weight"][0] == 1,
        }
    return keys


def _find_roi_heads(shapes: Shapes) -> str:
    if f"{BOX_HEAD}.0.fc1.weight" in shapes:
        return "CascadeROIHeads"
    return "StandardROIHeads" if f"{BOX_HEAD}.fc1.weight" in shapes else "Res5ROIHeads"


def _infer_box_head(shapes: Shapes, head: str) -> dict[str, Any]:
    if f"{head}.fc1.weight" not in shapes:  # C4 has the last stage of the ResNet in its place
        return {"MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14}
    convolutions = count_layers(shapes, f"{head}.conv{{}}.weight", first=1)
    keys: dict[str, Any] = {"MODEL.ROI_BOX_HEAD.NUM_CONV": convolutions}
    channels = shapes.get("backbone.fpn_output2.weight", shapes[_find_last_convolution(shapes)])[0]
    if convolutions:
        channels = shapes[f"{head}.conv1.weight"][0]
        keys |= {
            "MODEL.ROI_BOX_HEAD.CONV_DIM": channels,
            "MODEL.ROI_BOX_HEAD.NORM": _find_norm(shapes, f"{head}.conv1"),
        }
    outputs, inputs = shapes[f"{head}.fc1.weight"]
    keys |= {
        "MODEL.ROI_BOX_HEAD.NUM_FC": count_layers(shapes, f"{head}.fc{{}}.weight", first=1),
        "MODEL.ROI_BOX_HEAD.FC_DIM": outputs,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": math.isqrt(inputs // channels),
    }
    return keys


def _infer_semantic_head(shapes: Shapes) -> dict[str, Any]:
    return {
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": shapes[f"{SEMANTIC_HEAD}.predictor.weight"][1],
        "MODEL.SEM_SEG_HEAD.NORM": _find_norm(shapes, f"{SEMANTIC_HEAD}.p2.0"),
    }


def count_classes(shapes: Shapes) -> tuple[int, int]:
    """Count the classes of Detectron2's heads.

    Args:
        shapes: name -> shape, named as in Detectron2's models.

    Returns:
        (thing classes, semantic channels), 0 for a head that the network lacks.
    """
    things = next((shapes[name][0] - 1 for name in SCORES if name in shapes), 0)
    if RETINANET_SCORES in shapes:
        things = shapes[RETINANET_SCORES][0] * 4 // shapes[RETINANET_BOXES][0]  # both have rows for each anchor
    return things, shapes.get(f"{SEMANTIC_HEAD}.predictor.weight", (0,))[0]


def _find_norm(shapes: Shapes, convolution: str) -> str:
    """Detectron2's name of the norm after a convolution: frozen ones have no counter, group norms no statistics."""
    if f"{convolution}.norm.weight" not in shapes:
        return ""
    if f"{convolution}.norm.running_mean" not in shapes:
        return "GN"
    return "BN" if f"{convolution}.norm.num_batches_tracked" in shapes else "FrozenBN"


def _find_norm_of_backbone(shapes: Shapes) -> str:
    """The norm that all convolutions of a ResNet have; one tensor that is missing does not count."""
    norms = [name for name in shapes if name.startswith(BOTTOM_UP) and ".norm." in name]
    if not any(name.endswith(".running_mean") for name in norms):
        return "GN" if norms else ""
    return "BN" if any(name.endswith(".num_batches_tracked") for name in norms) else "FrozenBN"


def _find_last_convolution(shapes: Shapes) -> str:
    """The name of the weight that gives the output of the ResNet."""
    names = (f"{BOTTOM_UP}res5.0.conv{number}.weight" for number in (3, 2))
    return next(name for name in names if name in shapes)


def count_layers(shapes: Shapes, template: str, first: int = 0, step: int = 1) -> int:
    """Count the numbers that make a template the name of a weight.

    Args:
        shapes: name -> shape.
        template: a name with {} for a number; one that ends in a dot is the beginning of names.
        first: the first number.
        step: from one number to the next.

    Returns:
        How many numbers there are up to the largest one: a weight that is missing between others counts.
    """
    pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + (".*" if template.endswith(".") else ""))
    numbers = [int(match[1]) for name in shapes if (match := pattern.fullmatch(name))]
    return (max(numbers) - first) // step + 1 if numbers else 0


def find_size(shapes: Shapes, pattern: str, axis: int = 0, default: int = 0) -> int:
    """Find the size that most tensors of a name have, so that one that is missing or reshaped does not count.

    Args:
        shapes: name -> shape.
        pattern: regular expression of the names.
        axis: of the size.
        default: the size if no tensor has such a name and axis.

    Returns:
        The size; of sizes that are equally frequent the first.
    """
    matching = (shape for name, shape in shapes.items() if len(shape) > axis and re.fullmatch(pattern, name))
    return statistics.mode([shape[axis] for shape in matching] or [default])
