"""Models as one function of tensors: images in, the final result out, with fusion inside."""

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
from torch.nn import functional as F

from segkit.engine.export.detections import detect, propose
from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.modeling.meta_arch import PanopticDeepLab, PanopticRCNN
from segkit.modeling.postprocessing.detections import Detections, scale_boxes
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels
from segkit.modeling.postprocessing.majority_vote import fuse_majority_vote
from segkit.modeling.postprocessing.panoptic import PanopticPostProcessor, runs_on_tensors
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors
from segkit.modeling.postprocessing.resampling import Sizes, argmax_resized
from segkit.modeling.semantic_heads.build import compute_coarse_logits
from segkit.structures.graph_outputs import INSTANCES, OUTPUTS, PANOPTIC, SEMANTIC
from segkit.utils.errors import ConfigError

# Architecture -> what its graph can give.
GIVEN: dict[type[nn.Module], tuple[str, ...]] = {
    SemanticSegmentor: (SEMANTIC,),
    GeneralizedRCNN: (INSTANCES,),
    PanopticFPN: (SEMANTIC, INSTANCES, PANOPTIC),
    PanopticRCNN: (SEMANTIC, INSTANCES, PANOPTIC),
    PanopticDeepLab: (SEMANTIC, PANOPTIC),
}
NO_CLASS = -1  # of a row without an instance


class Graph(nn.Module):
    """A model as a function of tensors, whose shapes depend on no value.

    Args:
        model: in evaluation mode.
        tasks: keys of `OUTPUTS`.
        swap_channels: whether the model takes BGR; the graph takes RGB.
        channels: of the semantic head.
    """

    def __init__(self, model: Any, tasks: Sequence[str], swap_channels: bool, channels: int) -> None:
        super().__init__()
        self.model, self.tasks, self.swap_channels = model, [*tasks], swap_channels
        side = max(model.backbone.size_divisibility, 1)
        self.multiple_hw = getattr(model, "multiple_hw", (side, side))
        self.post_processor = None
        stuff_ids, thing_ids = getattr(model, "stuff_ids", None), getattr(model, "thing_ids", None)
        self.has_centers = isinstance(model, PanopticDeepLab)
        if self.has_centers:
            self.channels = SemanticChannels(channels, stuff_ids, thing_ids)
        elif PANOPTIC in tasks:
            self.post_processor = PanopticPostProcessor(get_fusion(model), channels, stuff_ids, thing_ids)

    @property
    def output_names(self) -> list[str]:
        """Names of the results of `forward`, in their order."""
        return [name for task in self.tasks for name in OUTPUTS[task]]

    def forward(self, images: torch.Tensor, canvas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the network and the fusion.

        Args:
            images: (B, C, h, w) uint8 or float in 0..255, resized images of one size; three channels are RGB.
            canvas: (H, W), any values: its size is that of the results.

        Returns:
            The tensors of `output_names`, see `OUTPUTS`.
        """
        sizes = Sizes((images.shape[2], images.shape[3]), (canvas.shape[0], canvas.shape[1]))
        features = self.model.backbone(self.preprocess(images))
        results: dict[str, torch.Tensor] = {}
        if SEMANTIC in self.tasks or PANOPTIC in self.tasks:
            logits, scale = self.compute_logits(features)
            sizes = sizes._replace(scale=scale)
        if SEMANTIC in self.tasks:
            results["semantic_ids"] = argmax_resized(logits, sizes).int()
        if self.has_centers and PANOPTIC in self.tasks:
            centers = self.compute_centers(features, sizes)
            fused = fuse_majority_vote(logits, sizes, *centers, self.channels, self.model.fusion)
            results.update(_build_panoptic(fused))
        elif INSTANCES in self.tasks or PANOPTIC in self.tasks:
            proposals = propose(self.model.proposal_generator, features, sizes.image_size)
            detections = detect(self.model.roi_heads, features, *proposals, sizes.image_size)
        if INSTANCES in self.tasks:
            results.update(_build_instances(detections, sizes))
        if self.post_processor is not None:
            results.update(_build_panoptic(self.post_processor(detections, logits, sizes)))
        return tuple(results[name] for name in self.output_names)

    def compute_logits(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Run the semantic head.

        Args:
            features: of the backbone.

        Returns:
            See `compute_coarse_logits`.
        """
        head = self.model.sem_seg_head
        return (
            (head.layers(features), head.common_stride) if self.has_centers else compute_coarse_logits(head, features)
        )

    def compute_centers(
        self, features: dict[str, torch.Tensor], sizes: Sizes
    ) -> tuple[torch.Tensor, torch.Tensor, Sizes]:
        """Run the center head of Panoptic-DeepLab.

        Args:
            features: of the backbone.
            sizes: of the images and results.

        Returns:
            Heat, offsets and their sizes, see `fuse_majority_vote`.
        """
        head = self.model.ins_embed_head
        heat, offsets_yx = head.layers(features)
        return heat, offsets_yx, sizes._replace(scale=head.common_stride)

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize images, and pad them below and on the right.

        Args:
            images: of `forward`.

        Returns:
            (B, C, h', w') float32 in the order of the model's channels.
        """
        pixels = images.float()
        if self.swap_channels:
            pixels = pixels.flip(1)
        pixels = (pixels - self.model.pixel_mean) / self.model.pixel_std
        # In this form the exporter sees that all levels have sizes that fit each other.
        down, right = (
            (side + step - 1) // step * step - side
            for side, step in zip(images.shape[2:], self.multiple_hw, strict=True)
        )
        return F.pad(pixels, (0, right, 0, down))


def _build_instances(detections: Detections, sizes: Sizes) -> dict[str, torch.Tensor]:
    scaled, has_area = scale_boxes(detections.boxes_xyxy, sizes.image_size, sizes.size_hw)
    valid = detections.valid & has_area
    return {
        "boxes": scaled,
        "scores": torch.where(valid, detections.scores, 0.0),
        "classes": torch.where(valid, detections.class_ids, NO_CLASS).int(),
        "masks": detections.mask_probs,
    }


def _build_panoptic(fused: FusedTensors) -> dict[str, torch.Tensor]:
    return {"segment_ids": fused.ids, "segments": fused.table[:, :-1], "errors": fused.table[:, -1, 0].int()}


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


def choose_tasks(model: nn.Module, tasks: Sequence[str] | None) -> list[str]:
    """Choose what a graph gives, and check that the model's parts can be exported.

    Args:
        model: a model.
        tasks: keys of `OUTPUTS`; None: all that the model gives.

    Returns:
        The tasks in the order of `OUTPUTS`.

    Raises:
        ConfigError: the architecture does not give a task, or a part of it cannot be exported.
    """
    name = type(model).__name__
    given = GIVEN.get(type(model))
    if given is None:
        known = ", ".join(each.__name__ for each in GIVEN)
        raise ConfigError(f"{name} cannot be exported as one graph", remedy=f"docs/export.md lists what can: {known}")
    chosen = [task for task in OUTPUTS if task in (given if tasks is None else tasks)]
    if missing := [task for task in chosen if task not in given]:
        raise ConfigError(f"{name} gives no {' and no '.join(missing)} output", remedy=f"choose {', '.join(given)}")
    if obstacle := _find_obstacle(model, chosen):
        raise ConfigError(f"{obstacle} cannot be exported as one graph", remedy="docs/export.md lists what can")
    return chosen


def _find_obstacle(model: Any, tasks: Sequence[str]) -> str:
    """Name a part that cannot be exported; "" for none."""
    if getattr(model.backbone, "padding_constraints", {}).get("square_size", 0) > 0:
        return "the padding to squares of a fixed size (MODEL.BACKBONE)"
    if PANOPTIC in tasks:
        fusion, has_centers = get_fusion(model), isinstance(model, PanopticDeepLab)
        if not (type(fusion) is MajorityVoteFusion if has_centers else runs_on_tensors(fusion)):
            return f"the fusion {type(fusion).__name__} (MODEL.PANOPTIC.FUSION)"
        if has_centers:
            return ""
    if INSTANCES not in tasks and PANOPTIC not in tasks:
        return ""
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
