"""PanopticRCNN: Mask R-CNN or Cascade Mask R-CNN and a semantic head on one FPN, fused into a panoptic map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import ImageList, Instances
from torch import nn

from segkit.config import with_segkit_keys
from segkit.fusion import LOGITS, FusionMethod, build_fusion
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.modeling.postprocessing.detections import detections_from_instances
from segkit.modeling.postprocessing.head_outputs import (
    SemanticLogits,
    build_semantic_scores,
    fuses_on_device,
    scale_instances,
)
from segkit.modeling.postprocessing.map_outputs import detectron2_segments_info, to_instances
from segkit.modeling.postprocessing.panoptic import PanopticPostProcessor
from segkit.modeling.postprocessing.panoptic_tensors import to_segments
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.postprocessing.view_merging import ViewOutputs
from segkit.modeling.semantic_heads.build import build_semantic_head, compute_coarse_logits, guard_unlabelled
from segkit.structures import HeadOutputs, InstanceMasks, Segment
from segkit.structures.architecture_spec import (
    PANOPTIC,
    ROI_HEADS,
    SEMANTIC_HEAD,
    ArchitectureSpec,
    register_architecture,
)
from segkit.utils.errors import ConfigError

TARGETS = {"sem_seg": "semantic labels (`sem_seg`)", "instances": "instances (`instances`)"}  # key of a sample -> text

register_architecture(
    ArchitectureSpec(
        "PanopticRCNN",
        targets=("instances", "semantic"),
        outputs=(*PANOPTIC, "head_outputs"),
        class_counts=ROI_HEADS | SEMANTIC_HEAD,
        postprocessing="fusion",
    )
)


@META_ARCH_REGISTRY.register()
class PanopticRCNN(GeneralizedRCNN):
    """Panoptic FPN (Kirillov et al. 2019, "Panoptic Feature Pyramid Networks") with an exchangeable fusion method.

    Parameter names and outputs are those of Detectron2's PanopticFPN (detectron2/modeling/meta_arch/panoptic_fpn.py).
    Its configs run with another MODEL.META_ARCHITECTURE, and its weights load strictly.

    Args:
        sem_seg_head: Called with (features, targets), returns (logits (B, C, H, W), losses).
        fusion: HeadOutputs -> PanopticSegmentation, see segkit.fusion; None: Detectron2's method and thresholds.
        stuff_ids: C integers, stuff contiguous id of each semantic channel, 0 for things; None: the channel itself.
        thing_ids: C integers, thing contiguous id of each semantic channel, -1 for none; None: all -1.
        **rcnn: backbone, proposal_generator, roi_heads, pixel_mean, pixel_std, ..., as in GeneralizedRCNN.

    Attributes:
        rounding: Applied to the head outputs before the fusion, which then runs on the CPU; None: no rounding.
        with_logits: Whether head outputs hold logits even if the fusion needs none.
    """

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        fusion: FusionMethod | None = None,
        stuff_ids: Sequence[int] | torch.Tensor | None = None,
        thing_ids: Sequence[int] | torch.Tensor | None = None,
        **rcnn: Any,
    ) -> None:
        super().__init__(**rcnn)
        self.sem_seg_head = guard_unlabelled(sem_seg_head)
        self.fusion = fusion or build_fusion("heuristic")
        self.rounding: Callable[[HeadOutputs], HeadOutputs] | None = None
        self.with_logits = False
        self.post_processor: PanopticPostProcessor | None = None  # see _get_post_processor
        self._post_processor_inputs: tuple[Any, ...] = (None, None, None)
        for name, ids in (("stuff_ids", stuff_ids), ("thing_ids", thing_ids)):
            self.register_buffer(name, None if ids is None else torch.as_tensor([*ids]), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config of Detectron2; segkit's keys may be missing.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: masks are off, or a class count is open.
        """
        cfg = with_segkit_keys(cfg)
        if not cfg.MODEL.MASK_ON:
            raise ConfigError("MODEL.MASK_ON is False, but PanopticRCNN needs masks", remedy="set MODEL.MASK_ON True")
        arguments = super().from_config(cfg)
        arguments["sem_seg_head"] = build_semantic_head(cfg, arguments["backbone"].output_shape())
        arguments["fusion"] = build_fusion_from_config(cfg)
        if cfg.MODEL.PANOPTIC.STUFF_IDS:
            arguments["stuff_ids"] = cfg.MODEL.PANOPTIC.STUFF_IDS
            arguments["thing_ids"] = cfg.MODEL.PANOPTIC.THING_IDS
        _scale_instance_losses(arguments["roi_heads"], cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT)
        return arguments

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, otherwise outputs.

        Args:
            batched_inputs: Per image "image" (3, H, W) tensor in [0, 255] in cfg.INPUT.FORMAT; "height" and "width" of
                the output; in training also "instances" (gt_boxes, gt_classes, gt_masks) and "sem_seg" (H, W) int64.

        Returns:
            A dict of scalar losses in training, otherwise `inference(batched_inputs)`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        _check_targets(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, sem_seg_losses = self.sem_seg_head(features, self._stack_sem_seg_targets(batched_inputs))
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
        """Run the network and the fusion.

        Args:
            batched_inputs: As for `forward`.
            detected_instances: Instances whose masks are predicted, as in GeneralizedRCNN; None: detect them.
            do_postprocess: Whether to scale outputs to the output size and to fuse them.

        Returns:
            Per image a LazyDict: "instances" (Instances with full-size pred_masks (N, H, W) bool), "sem_seg" (C, H, W)
            logits, "panoptic_seg" (ids (H, W) int32, Detectron2's segments_info with contiguous category_id),
            "instance_masks" (the same instances as InstanceMasks on the CPU) and "head_outputs" (input of the fusion).
            Only "panoptic_seg" is computed at once. With do_postprocess=False: (list[Instances], logits (B, C, h, w)).
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals, _ = self.proposal_generator(images, features, None)
            instances, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected_instances = [x.to(self.device) for x in detected_instances]
            instances = self.roi_heads.forward_with_given_boxes(features, detected_instances)
        if not do_postprocess:
            return instances, self.sem_seg_head(features, None)[0]
        semantics = self._compute_semantics(features, images, batched_inputs)
        fused = self._fuse_on_device(instances, semantics)
        return [self._build_output(*image) for image in zip(instances, semantics, fused, strict=True)]

    def compute_heads(self, batched_inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
        """Run the network alone, see `segkit.engine.test_time_augmentation`.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            Instances and semantic logits of each image at the size of the output.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        instances, _ = self.roi_heads(images, features, proposals, None)
        semantics = self._compute_semantics(features, images, batched_inputs)
        return [
            ViewOutputs(scale_instances(image, semantic.sizes.size_hw).masks, semantic.resize())
            for image, semantic in zip(instances, semantics, strict=True)
        ]

    def fuse_heads(self, outputs: ViewOutputs) -> LazyDict:
        """Run the fusion alone, on the CPU.

        Args:
            outputs: Of `compute_heads`, for one image.

        Returns:
            As an image of `inference`.
        """
        masks = outputs.instances
        if masks is None:
            raise ValueError("instances are needed, but there is no mask head")
        head_outputs = self._build_head_outputs(masks, outputs.semantic)
        panoptic = self.fusion(head_outputs)
        ids = torch.from_numpy(panoptic.segment_ids).to(self.device)
        return LazyDict(
            sem_seg=outputs.logits,
            instances=LazyValue(lambda: to_instances(masks, self.device)),
            instance_masks=masks,
            panoptic_seg=(ids, detectron2_segments_info(panoptic.segments)),
            head_outputs=head_outputs,
        )

    def _compute_semantics(
        self, features: dict[str, torch.Tensor], images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[SemanticLogits]:
        coarse, scale = compute_coarse_logits(self.sem_seg_head, features)
        semantics = []
        for logits, size, x in zip(coarse, images.image_sizes, batched_inputs, strict=True):
            size_hw = int(x.get("height") or size[0]), int(x.get("width") or size[1])
            semantics.append(SemanticLogits(logits, Sizes(size, size_hw, scale)))
        return semantics

    def _stack_sem_seg_targets(self, batched_inputs: list[dict[str, Any]]) -> torch.Tensor:
        targets = [x["sem_seg"].to(self.device) for x in batched_inputs]
        return ImageList.from_tensors(
            targets,
            self.backbone.size_divisibility,
            self.sem_seg_head.ignore_value,
            self.backbone.padding_constraints,
        ).tensor

    def _fuse_on_device(
        self, instances: list[Instances], semantics: list[SemanticLogits]
    ) -> Sequence[tuple[torch.Tensor, Sequence[Segment]] | None]:
        """The map, which stays on the device, and the segments of each image; None each if the CPU has to fuse."""
        if not semantics or not fuses_on_device(self.fusion, semantics[0].coarse) or self.rounding is not None:
            return [None] * len(semantics)
        detections = [detections_from_instances(image) for image in instances]
        coarse, sizes = [semantic.coarse for semantic in semantics], [semantic.sizes for semantic in semantics]
        fused = self._get_post_processor(len(coarse[0])).process_images(detections, coarse, sizes)
        return [(image.ids, segments) for image, segments in zip(fused, to_segments(fused), strict=True)]

    def _get_post_processor(self, channels: int) -> PanopticPostProcessor:
        """Build it for the first image on a GPU, and again if an input is replaced: `model.fusion = ...`."""
        inputs = self.fusion, self.stuff_ids, self.thing_ids
        if self.post_processor is None or any(
            a is not b for a, b in zip(inputs, self._post_processor_inputs, strict=True)
        ):
            post_processor = PanopticPostProcessor(self.fusion, channels, self.stuff_ids, self.thing_ids)
            self.post_processor, self._post_processor_inputs = post_processor.to(self.device), inputs
        return self.post_processor

    def _build_output(
        self, instances: Instances, semantic: SemanticLogits, fused: tuple[torch.Tensor, Sequence[Segment]] | None
    ) -> LazyDict:
        scaled = cache(lambda: scale_instances(instances, semantic.sizes.size_hw))
        head_outputs = cache(lambda: self._build_head_outputs(scaled().masks, semantic))
        if fused is None:
            panoptic = self.fusion(head_outputs())
            fused = torch.from_numpy(panoptic.segment_ids).to(self.device), panoptic.segments
        return LazyDict(
            sem_seg=LazyValue(semantic.resize),
            instances=LazyValue(lambda: scaled().with_full_masks()),
            instance_masks=LazyValue(lambda: scaled().masks),
            panoptic_seg=(fused[0], detectron2_segments_info(fused[1])),
            head_outputs=LazyValue(head_outputs),
        )

    def _build_head_outputs(self, masks: InstanceMasks, semantic: SemanticLogits) -> HeadOutputs:
        with_logits = self.with_logits or LOGITS in self.fusion.needs
        scores = build_semantic_scores(semantic, self.stuff_ids, self.thing_ids, with_logits)
        outputs = HeadOutputs(masks, scores)
        return outputs if self.rounding is None else self.rounding(outputs)


def _check_targets(batched_inputs: Sequence[dict[str, Any]]) -> None:
    """Raise ConfigError if a training sample lacks a target."""
    for number, sample in enumerate(batched_inputs):
        missing = [text for key, text in TARGETS.items() if key not in sample]
        if missing:
            raise ConfigError(
                f"{sample.get('file_name', number)} has no {' and no '.join(missing)}, which PanopticRCNN needs",
                remedy="train on a panoptic dataset, by segkit.Trainer, whose mapper gives both; or set "
                "MODEL.META_ARCHITECTURE to GeneralizedRCNN",
            )


def _scale_instance_losses(roi_heads: nn.Module, weight: float) -> None:
    """Multiply the weights of box and mask losses, as Detectron2's PanopticFPN does."""
    if weight == 1.0:
        return
    predictors = roi_heads.box_predictor
    for head in [*(predictors if isinstance(predictors, nn.ModuleList) else [predictors]), roi_heads.mask_head]:
        scale = head.loss_weight
        head.loss_weight = {k: v * weight for k, v in scale.items()} if isinstance(scale, dict) else scale * weight
