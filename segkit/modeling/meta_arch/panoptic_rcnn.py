"""PanopticRCNN: Mask R-CNN or Cascade Mask R-CNN with a semantic head on one FPN, fused into a panoptic map."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_sem_seg_head, detector_postprocess
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList, Instances
from torch import nn

from segkit.fusion import FusionMethod, build_fusion
from segkit.modeling.paste import paste_crops
from segkit.structures import ConfigError, HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores


@META_ARCH_REGISTRY.register()
class PanopticRCNN(GeneralizedRCNN):
    """Panoptic FPN (Kirillov et al. 2019, "Panoptic Feature Pyramid Networks") with the fusion as a called unit.

    Parameter names and outputs are those of Detectron2's PanopticFPN (detectron2/modeling/meta_arch/panoptic_fpn.py):
    its configs run by changing MODEL.META_ARCHITECTURE, its weights load strictly.
    """

    @configurable
    def __init__(
        self, *, sem_seg_head: nn.Module, fusion: FusionMethod, stuff_ids: torch.Tensor | None = None, **rcnn: Any
    ) -> None:
        """
        sem_seg_head: called with (features, targets) -> (logits (B, C, H, W), losses).
        fusion: HeadOutputs -> PanopticSegmentation, see segkit.fusion.
        stuff_ids: (C,) int64, the stuff contiguous id of each semantic channel, 0 for things; None: the channel itself.
        rcnn: backbone, proposal_generator, roi_heads, pixel_mean, pixel_std, ..., as GeneralizedRCNN takes them.
        """
        super().__init__(**rcnn)
        self.sem_seg_head = sem_seg_head
        self.fusion = fusion
        self.register_buffer("stuff_ids", stuff_ids, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        if not cfg.MODEL.MASK_ON:
            raise ConfigError("MODEL.MASK_ON is False, but PanopticRCNN needs masks", remedy="set MODEL.MASK_ON True")
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        arguments = super().from_config(cfg)
        arguments["sem_seg_head"] = build_sem_seg_head(cfg, arguments["backbone"].output_shape())
        arguments["fusion"] = build_fusion(
            cfg.MODEL.PANOPTIC.FUSION.NAME,
            overlap_threshold=combine.OVERLAP_THRESH,
            stuff_area_limit_px=combine.STUFF_AREA_LIMIT,
            instance_score_threshold=combine.INSTANCES_CONFIDENCE_THRESH,
        )
        if cfg.MODEL.PANOPTIC.STUFF_IDS:
            arguments["stuff_ids"] = torch.tensor(cfg.MODEL.PANOPTIC.STUFF_IDS)
        _scale_instance_losses(arguments["roi_heads"], cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT)
        return arguments

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """
        batched_inputs, per image: "image" (3, H, W) tensor, values in [0, 255], in cfg.INPUT.FORMAT; "height", "width":
        the output size; in training also "instances" (gt_boxes, gt_classes, gt_masks) and "sem_seg" (H, W) int64.

        Training: a dict of scalar losses. Otherwise `inference(batched_inputs)`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, sem_seg_losses = self.sem_seg_head(features, self._sem_seg_targets(batched_inputs))
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        return {**sem_seg_losses, **proposal_losses, **detector_losses}

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """
        Per image a dict: "instances" (Instances with full-size pred_masks (N, H, W) bool), "sem_seg" (C, H, W) logits,
        "panoptic_seg" (ids (H, W) int32, segments_info as Detectron2 writes it, category_id contiguous), and
        "instance_masks": the same instances as InstanceMasks on the CPU, for those who need no full-size masks.
        do_postprocess=False: (list[Instances], logits (B, C, h, w)) as the heads made them.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        sem_seg_logits, _ = self.sem_seg_head(features, None)
        if detected_instances is None:
            proposals, _ = self.proposal_generator(images, features, None)
            instances, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [x.to(self.device) for x in detected_instances]
            instances = self.roi_heads.forward_with_given_boxes(features, given)
        if not do_postprocess:
            return instances, sem_seg_logits
        return [
            self._postprocess_one(found, logits, image_size, x.get("height"), x.get("width"))
            for found, logits, x, image_size in zip(
                instances, sem_seg_logits, batched_inputs, images.image_sizes, strict=True
            )
        ]

    def _sem_seg_targets(self, batched_inputs: list[dict[str, Any]]) -> torch.Tensor:
        missing = [x.get("file_name", i) for i, x in enumerate(batched_inputs) if "sem_seg" not in x]
        if missing:
            raise ConfigError(
                f"PanopticRCNN trains on semantic maps, but {missing[0]} comes without `sem_seg`",
                remedy="train on a panoptic dataset, or set MODEL.META_ARCHITECTURE to GeneralizedRCNN",
            )
        targets = [x["sem_seg"].to(self.device) for x in batched_inputs]
        return ImageList.from_tensors(
            targets,
            self.backbone.size_divisibility,
            self.sem_seg_head.ignore_value,
            self.backbone.padding_constraints,
        ).tensor

    def _postprocess_one(
        self, found: Instances, logits: torch.Tensor, image_size: tuple[int, int], height: Any, width: Any
    ) -> dict[str, Any]:
        size_hw = int(height or image_size[0]), int(width or image_size[1])
        sem_seg = sem_seg_postprocess(logits, image_size, *size_hw)
        instances, masks = _instances_at(found, size_hw)
        channels = sem_seg.argmax(dim=0)
        stuff_ids = channels if self.stuff_ids is None else self.stuff_ids[channels]
        fused = self.fusion(HeadOutputs(masks, SemanticScores.of_stuff_ids(stuff_ids.cpu().numpy())))
        ids = torch.from_numpy(fused.segment_ids).to(sem_seg.device)
        return {
            "sem_seg": sem_seg,
            "instances": instances,
            "instance_masks": masks,
            "panoptic_seg": (ids, detectron2_segments_info(fused)),
        }


def detectron2_segments_info(panoptic: PanopticSegmentation) -> list[dict[str, Any]]:
    """Detectron2's segments_info: things with score and instance_id, stuff with its area; category_id contiguous."""
    return [
        {
            "id": s.segment_id,
            "isthing": True,
            "score": s.score,
            "category_id": s.category_id,
            "instance_id": s.instance_id,
        }
        if s.isthing
        else {"id": s.segment_id, "isthing": False, "category_id": s.category_id, "area": s.area_px}
        for s in panoptic.segments
    ]


def _instances_at(found: Instances, size_hw: tuple[int, int]) -> tuple[Instances, InstanceMasks]:
    """Instances in output pixels with full-size masks (Detectron2's contract), and the same as crops."""
    fields = {**found.get_fields(), "row": torch.arange(len(found), device=found.scores.device)}
    mask_probs = fields.pop("pred_masks")[:, 0]
    instances = detector_postprocess(Instances(found.image_size, **fields), *size_hw)
    kept = instances.get("row")
    instances.remove("row")
    masks = paste_crops(
        mask_probs[kept], instances.pred_boxes.tensor, instances.scores, instances.pred_classes, size_hw
    )
    instances.pred_masks = torch.from_numpy(masks.to_full()).to(kept.device)
    return instances, masks


def _scale_instance_losses(roi_heads: nn.Module, weight: float) -> None:
    """PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT on every box and mask loss, as Detectron2's PanopticFPN does."""
    if weight == 1.0:
        return
    predictors = roi_heads.box_predictor
    for head in [*(predictors if isinstance(predictors, nn.ModuleList) else [predictors]), roi_heads.mask_head]:
        scale = head.loss_weight
        head.loss_weight = {k: v * weight for k, v in scale.items()} if isinstance(scale, dict) else scale * weight
