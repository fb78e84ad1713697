"""PanopticDeepLab: a semantic map, centers of things and offsets to them, grouped into a panoptic map."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from segkit.config import check_class_counts, with_segkit_keys
from segkit.fusion import CENTERS, LOGITS, FusionMethod, build_fusion
from segkit.modeling.center_heads import build_center_head
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.modeling.postprocessing.centers import CenterLogits, build_instances, build_no_instances
from segkit.modeling.postprocessing.head_outputs import SemanticLogits, build_semantic_scores
from segkit.modeling.postprocessing.map_outputs import detectron2_segments_info, to_instances
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.postprocessing.view_merging import ViewOutputs
from segkit.modeling.semantic_heads.checks import check_deeplab_backbone, check_semantic_head
from segkit.structures import CenterOffsets, HeadOutputs
from segkit.structures.architecture_spec import PANOPTIC, SEMANTIC_HEAD, ArchitectureSpec, register_architecture
from segkit.utils.errors import ConfigError

NAME, MAJORITY_VOTE = "PanopticDeepLab", "majority_vote"
CENTER_TARGETS = ("center", "center_weights", "offset", "offset_weights")  # in the order of the head's arguments
TARGETS = ("sem_seg", "sem_seg_weights", *CENTER_TARGETS)

register_architecture(
    ArchitectureSpec(
        NAME,
        targets=("semantic", "centers"),
        outputs=(*PANOPTIC, "head_outputs"),
        class_counts=SEMANTIC_HEAD,
        postprocessing="fusion",
        fusion=MAJORITY_VOTE,
        thing_channels="per_class",
        crops_after_resize=True,
    )
)


class PanopticDeepLab(nn.Module):
    """Panoptic-DeepLab (Cheng et al. 2020) with Detectron2's heads and losses, and segkit's fusion.

    Parameter names, losses and outputs are those of the class of this name in Detectron2's project
    (detectron2/projects/panoptic_deeplab/panoptic_seg.py), which this class replaces in META_ARCH_REGISTRY: configs and
    weights of the project are used unchanged. Two things differ. Offsets are scaled to the output if it has another
    size than the network's image; Detectron2 leaves them in pixels of the image. "panoptic_seg" has its segments_info.

    Args:
        backbone: Images (B, 3, H, W) -> levels.
        sem_seg_head: As PanopticDeepLabSemSegHead: called with (levels, targets, weights) in training; `layers` gives
            the logits (B, C, h, w), `common_stride` pixels of the image each.
        ins_embed_head: As PanopticDeepLabInsEmbedHead.
        pixel_mean: Three numbers, subtracted from the image.
        pixel_std: Three numbers, by which it is then divided.
        stuff_ids: C integers, stuff contiguous id of each semantic channel, 0 for things.
        thing_ids: C integers, thing contiguous id of each semantic channel, -1 for stuff.
        fusion: HeadOutputs -> PanopticSegmentation; None: majority_vote.
        multiple_hw: Height and width are padded to multiples of these numbers, in pixels.
        predicts_instances: Whether outputs have "instances" and "instance_masks".

    Attributes:
        rounding: Applied to the head outputs before the fusion; None: no rounding.
        with_logits: Whether head outputs hold logits even if the fusion needs none.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        ins_embed_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        stuff_ids: Sequence[int],
        thing_ids: Sequence[int],
        fusion: FusionMethod | None = None,
        multiple_hw: tuple[int, int] = (1, 1),
        predicts_instances: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head: Any = sem_seg_head
        self.ins_embed_head: Any = ins_embed_head
        self.fusion = fusion or build_fusion(MAJORITY_VOTE)
        self.multiple_hw, self.predicts_instances = multiple_hw, predicts_instances
        self.rounding: Callable[[HeadOutputs], HeadOutputs] | None = None
        self.with_logits = False
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor([*values]).view(-1, 1, 1), persistent=False)
        for name, ids in (("stuff_ids", stuff_ids), ("thing_ids", thing_ids)):
            self.register_buffer(name, torch.tensor([*ids], dtype=torch.int64), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config of Detectron2; segkit's keys may be missing.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: a class count is open, the meaning of the channels is unknown, or keys contradict each other.
        """
        cfg = with_segkit_keys(cfg)
        check_class_counts(cfg)
        check_deeplab_backbone(cfg)
        fusion = build_fusion_from_config(cfg)
        _check_config(cfg, fusion)
        backbone = build_backbone(cfg)
        check_semantic_head(cfg, backbone.output_shape())
        try:
            sem_seg_head = build_sem_seg_head(cfg, backbone.output_shape())
            ins_embed_head = build_center_head(cfg, backbone.output_shape())
        except (AssertionError, ValueError) as error:  # of Detectron2: the levels and channels do not fit together
            where = "MODEL.SEM_SEG_HEAD and MODEL.INS_EMBED_HEAD"
            raise ConfigError(f"the heads do not fit the backbone or the crop: {error}", where=where) from error
        return {
            "backbone": backbone,
            "sem_seg_head": sem_seg_head,
            "ins_embed_head": ins_embed_head,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "stuff_ids": cfg.MODEL.PANOPTIC.STUFF_IDS,
            "thing_ids": cfg.MODEL.PANOPTIC.THING_IDS,
            "fusion": fusion,
            "multiple_hw": _choose_multiple(cfg, backbone),
            "predicts_instances": cfg.MODEL.PANOPTIC_DEEPLAB.PREDICT_INSTANCES,
        }

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, otherwise outputs.

        Args:
            batched_inputs: Per image "image" (3, H, W) tensor in [0, 255] in cfg.INPUT.FORMAT; "height" and "width" of
                the output; in training also the targets of `segkit.data.center_targets.CenterTargets`.

        Returns:
            A dict of scalar losses in training, otherwise `inference(batched_inputs)`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        _check_targets(batched_inputs)
        features = self.backbone(self._stack([self._normalize(x["image"]) for x in batched_inputs]))
        semantic = self._stack([x["sem_seg"] for x in batched_inputs], self.sem_seg_head.ignore_value)
        weights, *centers = (self._stack([x[name] for x in batched_inputs]) for name in TARGETS[1:])
        centers[0] = centers[0][:, None]
        _, losses = self.sem_seg_head(features, semantic, weights)
        _, _, center_losses, offset_losses = self.ins_embed_head(features, *centers)
        return {**losses, **center_losses, **offset_losses}

    def inference(self, batched_inputs: list[dict[str, Any]]) -> list[LazyDict]:
        """Run the network and the fusion.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            Per image a LazyDict: "sem_seg" (C, H, W) logits, "panoptic_seg" (ids (H, W) int32, Detectron2's
            segments_info with contiguous category_id), "head_outputs" (input of the fusion), and, if instances are
            predicted, "instances" (Detectron2's Instances with pred_masks (N, H, W) bool) and "instance_masks" (the
            same as InstanceMasks): the things of the map in its order. The score of an instance is its mean semantic
            probability times the heat at its center of mass. Only "panoptic_seg" is computed at once.
        """
        return [self._build_output(semantic, centers.resize()) for semantic, centers in self._run_heads(batched_inputs)]

    def compute_heads(self, batched_inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
        """Run the network alone, see `segkit.engine.test_time_augmentation`.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            Semantic logits and centers of each image at the size of the output.
        """
        outputs = self._run_heads(batched_inputs)
        return [ViewOutputs(logits=semantic.resize(), centers=centers.resize()) for semantic, centers in outputs]

    def fuse_heads(self, outputs: ViewOutputs) -> LazyDict:
        """Run the fusion alone.

        Args:
            outputs: Of `compute_heads`, for one image.

        Returns:
            As an image of `inference`.
        """
        if outputs.centers is None:
            raise ValueError("centers are needed, but there is no center head")
        return self._build_output(outputs.semantic, outputs.centers)

    def _run_heads(self, batched_inputs: list[dict[str, Any]]) -> list[tuple[SemanticLogits, CenterLogits]]:
        images = [self._normalize(x["image"]) for x in batched_inputs]
        features = self.backbone(self._stack(images))
        semantic = self.sem_seg_head.layers(features)
        heat, offsets = self.ins_embed_head.layers(features)
        outputs = []
        for row, (image, x) in enumerate(zip(images, batched_inputs, strict=True)):
            height, width = image.shape[-2:]
            size_hw = int(x.get("height") or height), int(x.get("width") or width)
            sizes = Sizes((height, width), size_hw, self.sem_seg_head.common_stride)
            centers = CenterLogits(heat[row], offsets[row], sizes._replace(scale=self.ins_embed_head.common_stride))
            outputs.append((SemanticLogits(semantic[row], sizes), centers))
        return outputs

    def _normalize(self, image: torch.Tensor) -> torch.Tensor:
        return (image.to(self.device, non_blocking=True) - self.pixel_mean) / self.pixel_std

    def _stack(self, tensors: list[torch.Tensor], pad_value: float = 0.0) -> torch.Tensor:
        """(B, ..., H, W), padded below and on the right to the largest image and to `multiple_hw`."""
        tensors = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        stacked = ImageList.from_tensors(tensors, pad_value=pad_value).tensor
        down, right = (-side % m for side, m in zip(stacked.shape[-2:], self.multiple_hw, strict=True))
        return F.pad(stacked, (0, right, 0, down), value=pad_value) if down or right else stacked

    def _build_output(self, semantic: SemanticLogits, centers: CenterOffsets) -> LazyDict:
        head_outputs = self._build_head_outputs(semantic, centers)
        panoptic = self.fusion(head_outputs)
        values = {
            "sem_seg": LazyValue(semantic.resize),
            "panoptic_seg": (
                torch.from_numpy(panoptic.segment_ids).to(self.device),
                detectron2_segments_info(panoptic.segments),
            ),
            "head_outputs": head_outputs,
        }
        if self.predicts_instances:
            instances = cache(lambda: build_instances(panoptic, semantic, centers.heatmap, self.thing_ids))
            values["instances"] = LazyValue(lambda: to_instances(instances(), self.device))
            values["instance_masks"] = LazyValue(instances)
        return LazyDict(**values)

    def _build_head_outputs(self, semantic: SemanticLogits, centers: CenterOffsets) -> HeadOutputs:
        with_logits = self.with_logits or LOGITS in self.fusion.needs
        scores = build_semantic_scores(semantic, self.stuff_ids, self.thing_ids, with_logits)
        outputs = HeadOutputs(build_no_instances(semantic.sizes.size_hw), scores, centers=centers)
        return outputs if self.rounding is None else self.rounding(outputs)


# Detectron2's class registered this name when its heads were imported.
META_ARCH_REGISTRY._obj_map[NAME] = PanopticDeepLab


def _check_config(cfg: CfgNode, fusion: FusionMethod) -> None:
    model = cfg.MODEL
    if len(model.PANOPTIC.THING_IDS) != model.SEM_SEG_HEAD.NUM_CLASSES:
        raise ConfigError(
            f"the meaning of the {model.SEM_SEG_HEAD.NUM_CLASSES} semantic channels of {NAME} is unknown",
            where="MODEL.PANOPTIC.THING_IDS",
            remedy="read the config by segkit.prepare_config, which sets them from the dataset; Detectron2's own model "
            "is detectron2.projects.panoptic_deeplab.PanopticDeepLab(cfg)",
        )
    if model.PANOPTIC.FUSION.NAME not in ("auto", MAJORITY_VOTE) and CENTERS not in fusion.needs:
        problem = f"{NAME} has centers and no masks, which {model.PANOPTIC.FUSION.NAME} needs"
        raise ConfigError(problem, where="MODEL.PANOPTIC.FUSION.NAME", remedy=f"set it to {MAJORITY_VOTE}")
    options = model.SEM_SEG_HEAD
    if options.LOSS_TYPE != "hard_pixel_mining":  # cross_entropy takes no weights of pixels
        problem = f"{NAME} needs hard_pixel_mining, got {options.LOSS_TYPE}"
        remedy = "set MODEL.SEM_SEG_HEAD.LOSS_TYPE hard_pixel_mining and LOSS_TOP_K 1.0 for the mean of all pixels"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD.LOSS_TYPE", remedy=remedy)
    if options.LOSSES or options.AUXILIARY.IN_FEATURES:
        problem = f"{NAME} has a semantic loss of its own, which weights pixels"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD", remedy="leave LOSSES and AUXILIARY.IN_FEATURES empty")
    head = SEM_SEG_HEADS_REGISTRY._obj_map.get(options.NAME)
    if head is None or "weights" not in inspect.signature(head.forward).parameters:
        problem = f"{NAME} needs a semantic head that weights pixels, got {options.NAME}"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD.NAME", remedy="set it to PanopticDeepLabSemSegHead")
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE != "absolute":
        problem = f"expected absolute, since the heads pool windows of the size of the crop, got {cfg.INPUT.CROP.TYPE}"
        raise ConfigError(problem, where="INPUT.CROP.TYPE", remedy="give INPUT.CROP.SIZE in pixels")
    separable = [node.USE_DEPTHWISE_SEPARABLE_CONV for node in (options, model.PANOPTIC_DEEPLAB)]
    if separable[0] != separable[1]:
        problem = f"expected USE_DEPTHWISE_SEPARABLE_CONV to be equal in both heads, got {separable[0]}, {separable[1]}"
        where = "MODEL.SEM_SEG_HEAD and MODEL.PANOPTIC_DEEPLAB"
        raise ConfigError(problem, where=where, remedy="set both to one value")


def _choose_multiple(cfg: CfgNode, backbone: Any) -> tuple[int, int]:
    """To what images are padded: the heads pool windows of the size of the crop."""
    side: int = cfg.MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY
    if side <= 0 and cfg.INPUT.CROP.ENABLED:
        height, width = cfg.INPUT.CROP.SIZE
        return height, width
    side = side if side > 0 else max(backbone.size_divisibility, 1)
    return side, side


def _check_targets(batched_inputs: Sequence[dict[str, Any]]) -> None:
    """Raise ConfigError if a training sample lacks a target."""
    for number, sample in enumerate(batched_inputs):
        if missing := [name for name in TARGETS if name not in sample]:
            raise ConfigError(
                f"{sample.get('file_name', number)} has no {', '.join(missing)}, which {NAME} needs",
                remedy="train on a panoptic dataset, by segkit.Trainer, whose mapper gives them",
            )
