"""Small panoptic models with random weights that detect many instances, and their inputs."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from segkit.config import load_config
from segkit.modeling import register_models

THINGS, SEMANTIC = 7, 6
STANDARD, CASCADE = "StandardROIHeads", "CascadeROIHeads"


def small_config(arch: str, roi_heads: str = STANDARD, **values: Any) -> Any:
    """`values`: config keys with "__" in the place of dots."""
    cfg = load_config()
    cfg.merge_from_list(
        f"""MODEL.DEVICE cpu MODEL.META_ARCHITECTURE {arch} MODEL.MASK_ON True
        MODEL.BACKBONE.NAME build_resnet_fpn_backbone MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64
        MODEL.RESNETS.NORM GN MODEL.FPN.NORM GN MODEL.FPN.OUT_CHANNELS 32 MODEL.BACKBONE.FREEZE_AT 0
        MODEL.ROI_HEADS.NUM_CLASSES {THINGS} MODEL.SEM_SEG_HEAD.NUM_CLASSES {SEMANTIC}
        MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.ROI_BOX_HEAD.FC_DIM 64 MODEL.ROI_MASK_HEAD.CONV_DIM 32
        MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.ROI_HEADS.NAME {roi_heads}
        MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG {roi_heads == CASCADE}
        MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH 0.05 MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT 100
        MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead MODEL.ROI_BOX_HEAD.NUM_FC 2 MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 7
        MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead MODEL.ROI_MASK_HEAD.NUM_CONV 2""".split()
    )
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.merge_from_list([word for key, value in values.items() for word in (key.replace("__", "."), value)])
    return cfg


def twins(roi_heads: str = STANDARD, **values: Any) -> tuple[Any, Any]:
    """Returns the model of Detectron2 and ours with equal random weights, large enough for many instances."""
    register_models()
    torch.manual_seed(3)
    theirs = build_model(small_config("PanopticFPN", roi_heads, **values))
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if any(
                part in name for part in ("cls_score", "bbox_pred", "mask_head.predictor", "sem_seg_head.predictor")
            ):
                weight.add_(torch.randn_like(weight) * (0.02 if "bbox_pred" in name else 0.3))
    ours = build_model(small_config("PanopticRCNN", roi_heads, **values))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def images(count: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [((96, 128), (144, 192)), ((128, 96), (100, 75))]  # (network's size, output size)
    return [
        {"image": torch.rand((3, *size), generator=generator) * 255, "height": out[0], "width": out[1]}
        for size, out in sizes[:count]
    ]


def targets(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for item in batch:
        height, width = item["image"].shape[1:]
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 5:50, 8:60] = True
        masks[1, 30:80, 40:90] = True
        ground_truth = Instances((height, width))
        ground_truth.gt_masks = BitMasks(masks)
        ground_truth.gt_boxes = ground_truth.gt_masks.get_bounding_boxes()
        ground_truth.gt_classes = torch.tensor([1, 4])
        sem_seg = torch.full((height, width), 3)
        sem_seg[:20] = 255
        item.update(instances=ground_truth, sem_seg=sem_seg)
    return batch
