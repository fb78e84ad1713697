"""Graphs of Detectron2's heads: a semantic head, a detector of boxes with masks, or both and their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, SemanticSegmentor
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from torch import nn

from segkit.engine.export.detections import detect, propose
from segkit.engine.export.graph import NO_CLASS, Graph, find_square_padding, name_panoptic
from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.modeling.meta_arch import PanopticRCNN
from segkit.modeling.postprocessing.detections import Detections, scale_boxes
from segkit.modeling.postprocessing.panoptic import PanopticPostProcessor, runs_on_tensors
from segkit.modeling.postprocessing.resampling import Sizes, argmax_resized
from segkit.modeling.semantic_heads.build import compute_coarse_logits
from segkit.structures.graph_outputs import BOX_MASKS, INSTANCES, PANOPTIC, SEMANTIC

GIVEN: dict[type[nn.Module], tuple[str, ...]] = {
    SemanticSegmentor: (SEMANTIC,),
    GeneralizedRCNN: (INSTANCES,),
    PanopticFPN: (SEMANTIC, INSTANCES, PANOPTIC),
    PanopticRCNN: (SEMANTIC, INSTANCES, PANOPTIC),
}


class BoxGraph(Graph):
    """Of the architectures of `GIVEN`. See base class."""

    def __init__(self, model: Any, tasks: Sequence[str], swap_channels: bool, channels: int) -> None:
        super().__init__(model, tasks, swap_channels, channels)
        self.post_processor = None
        if PANOPTIC in tasks:
            ids = (getattr(model, name, None) for name in ("stuff_ids", "thing_ids"))
            self.post_processor = PanopticPostProcessor(get_fusion(model), channels, *ids)

    @staticmethod
    def list_tasks(model: Any) -> tuple[str, ...]:
        """See base class."""
        return GIVEN[type(model)]

    @staticmethod
    def find_obstacle(model: Any, tasks: Sequence[str]) -> str:
        """See base class."""
        if obstacle := find_square_padding(model):
            return obstacle
        if PANOPTIC in tasks and not runs_on_tensors(get_fusion(model)):
            return f"the fusion {type(get_fusion(model)).__name__} (MODEL.PANOPTIC.FUSION)"
        return _find_detector_obstacle(model) if INSTANCES in tasks or PANOPTIC in tasks else ""

    def compute(self, pixels: torch.Tensor, sizes: Sizes) -> dict[str, torch.Tensor]:
        """See base class."""
        features, results = self.model.backbone(pixels), dict[str, torch.Tensor]()
        if SEMANTIC in self.tasks or PANOPTIC in self.tasks:
            logits, scale = compute_coarse_logits(self.model.sem_seg_head, features)
            sizes = sizes._replace(scale=scale)
        if SEMANTIC in self.tasks:
            results["semantic_ids"] = argmax_resized(logits, sizes).int()
        if INSTANCES in self.tasks or PANOPTIC in self.tasks:
            proposals = propose(self.model.proposal_generator, features, sizes.image_size)
            detections = detect(self.model.roi_heads, features, *proposals, sizes.image_size)
        if INSTANCES in self.tasks:
            results.update(_name_instances(detections, sizes))
        if self.post_processor is not None:
            results.update(name_panoptic(self.post_processor(detections, logits, sizes)))
        return results


def get_fusion(model: Any) -> FusionMethod:
    """The fusion method of a panoptic model.

    Args:
        model: one of the architectures of `GIVEN`.

    Returns:
        The method; of Detectron2's PanopticFPN its own, with its thresholds.
    """
    if isinstance(model, PanopticFPN):
        return HeuristicFusion(
            overlap_threshold=model.combine_overlap_thresh,
            stuff_area_limit_px=model.combine_stuff_area_thresh,
            instance_score_threshold=model.combine_instances_score_thresh,
        )
    fusion: FusionMethod = model.fusion
    return fusion


def _name_instances(detections: Detections, sizes: Sizes) -> dict[str, torch.Tensor]:
    scaled, has_area = scale_boxes(detections.boxes_xyxy, sizes.image_size, sizes.size_hw)
    valid = detections.valid & has_area
    return {
        "boxes": scaled,
        "scores": torch.where(valid, detections.scores, 0.0),
        "classes": torch.where(valid, detections.class_ids, NO_CLASS).int(),
        BOX_MASKS: detections.mask_probs,
    }


def _find_detector_obstacle(model: Any) -> str:
    rpn, heads = model.proposal_generator, model.roi_heads
    if type(rpn) is not RPN:
        return f"{type(rpn).__name__} (MODEL.PROPOSAL_GENERATOR.NAME)"
    if type(heads) not in (StandardROIHeads, CascadeROIHeads):
        return f"{type(heads).__name__} (MODEL.ROI_HEADS.NAME)"
    if not heads.mask_on:
        return "a detector without masks (MODEL.MASK_ON)"
    if heads.keypoint_on:
        return "a keypoint head (MODEL.KEYPOINT_ON)"
    predictors = [*heads.box_predictor] if isinstance(heads, CascadeROIHeads) else [heads.box_predictor]
    for predictor in predictors:
        if type(predictor) is not FastRCNNOutputLayers or predictor.test_topk_per_image < 0:
            return f"{type(predictor).__name__} with any number of results (TEST.DETECTIONS_PER_IMAGE)"
    if not isinstance(heads.mask_head, MaskRCNNConvUpsampleHead):
        return f"{type(heads.mask_head).__name__} (MODEL.ROI_MASK_HEAD.NAME)"
    for pooler in (heads.box_pooler, heads.mask_pooler):
        if pooler is None or not isinstance(pooler.level_poolers[0], ROIAlign):
            return "a pooler other than ROIAlign (POOLER_TYPE)"
    return ""
