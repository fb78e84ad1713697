"""EoMT: a plain ViT whose last blocks see queries, for instance, semantic and panoptic segmentation."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage, has_event_storage

from segkit.config import check_class_counts, with_segkit_keys
from segkit.modeling.backbones.plain_vit import PlainViT
from segkit.modeling.queries.annealing import MaskAnnealing, build_annealing
from segkit.modeling.queries.eomt_head import EoMTHead
from segkit.modeling.queries.outputs import QueryOutputs
from segkit.modeling.queries.segmentor import FUSION, QuerySegmentor
from segkit.runtime.images import ALL_CHANNELS, GREY
from segkit.structures.architecture_spec import PANOPTIC, QUERIES, ArchitectureSpec, register_architecture
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

NAME, BUILDER = "EoMT", "build_timm_backbone"

register_architecture(
    ArchitectureSpec(
        NAME,
        targets=("instances", "semantic"),
        outputs=(*PANOPTIC, "head_outputs"),
        class_counts=QUERIES,
        postprocessing="fusion",
        needs_targets=False,
        fusion=FUSION,
        thing_channels="per_class",
    )
)


@META_ARCH_REGISTRY.register()
class EoMT(QuerySegmentor):
    """The Encoder-only Mask Transformer (Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", 2025).

    In training the attention of queries is masked as `annealing` says; the iteration is that of Detectron2's
    EventStorage, and without a storage the training is at its beginning. Otherwise no attention is masked.

    Args:
        backbone: the ViT, whose last blocks run with queries.
        head: the queries and what predicts from them.
        annealing: the probabilities of masked attention by the progress of the training.
        max_iter: iterations of the training.
        **segmentor: criterion, pixel_mean, pixel_std, stuff_ids, thing_ids, ..., as in QuerySegmentor.
    """

    @configurable
    def __init__(
        self, *, backbone: PlainViT, head: EoMTHead, annealing: MaskAnnealing, max_iter: int, **segmentor: Any
    ) -> None:
        super().__init__(**segmentor)
        self.backbone, self.head = backbone, head
        self.annealing, self.max_iter = annealing, max_iter

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config; segkit's keys may be missing.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: the network is no plain ViT, sizes do not fit, a schedule is invalid, or a class count is open.
        """
        cfg = with_segkit_keys(cfg)
        check_class_counts(cfg)
        blocks, queries = cfg.MODEL.EOMT.NUM_BLOCKS, cfg.MODEL.QUERIES.NUM_QUERIES
        annealing = build_annealing(blocks, cfg.MODEL.EOMT.ANNEALING_STARTS, cfg.MODEL.EOMT.ANNEALING_ENDS)
        backbone = _build_backbone(cfg)
        arguments = super().from_config(cfg)
        head = EoMTHead(backbone, blocks=blocks, queries=queries, classes=cfg.MODEL.QUERIES.NUM_CLASSES)
        own = {"backbone": backbone, "head": head, "annealing": annealing, "max_iter": cfg.SOLVER.MAX_ITER}
        return {**arguments, **own, "size_divisibility": backbone.size_divisibility}

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """See base class. As in the official code, images are padded with black, and then normalized."""
        images = [sample["image"].to(self.device, non_blocking=True).float() for sample in batched_inputs]
        constraints = self.backbone.padding_constraints
        batch = ImageList.from_tensors(images, self.size_divisibility, padding_constraints=constraints)
        batch.tensor = (batch.tensor - self.pixel_mean) / self.pixel_std
        return batch

    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        """See base class."""
        probabilities: list[float] = []
        if self.training:
            iteration = get_event_storage().iter if has_event_storage() else 0
            probabilities = self.annealing.compute_probabilities(min(iteration / self.max_iter, 1.0))
        outputs: list[QueryOutputs] = self.head(self.backbone, images, probabilities)
        return outputs


def _build_backbone(cfg: CfgNode) -> PlainViT:
    timm, eomt, inputs = cfg.MODEL.TIMM, cfg.MODEL.EOMT, cfg.INPUT
    if cfg.MODEL.BACKBONE.NAME != BUILDER:
        problem = f"{NAME} needs a plain ViT of timm, got {cfg.MODEL.BACKBONE.NAME}"
        remedy = f"set it to {BUILDER}, and MODEL.TIMM.NAME to the ViT"
        raise ConfigError(problem, where="MODEL.BACKBONE.NAME", remedy=remedy)
    if timm.NORM or timm.OUTPUT_STRIDE != 32:
        raise ConfigError(f"a plain ViT has no NORM and no OUTPUT_STRIDE, which {NAME} needs", where="MODEL.TIMM")
    backbone = PlainViT(
        timm.NAME,
        last_blocks=eomt.NUM_BLOCKS,
        queries=cfg.MODEL.QUERIES.NUM_QUERIES,
        channels={GREY: 1, ALL_CHANNELS: len(cfg.MODEL.PIXEL_MEAN)}.get(inputs.FORMAT, 3),
        image_format=inputs.FORMAT,
        patch_size=timm.PATCH_SIZE,
        image_size=timm.IMAGE_SIZE,
        drop_path=timm.DROP_PATH,
        rope_rescale=eomt.ROPE_RESCALE,
    )
    side = backbone.square_size
    limits = {"INPUT.MAX_SIZE_TEST": inputs.MAX_SIZE_TEST, "INPUT.MAX_SIZE_TRAIN": inputs.MAX_SIZE_TRAIN}
    if inputs.LSJ.ENABLED:
        limits.pop("INPUT.MAX_SIZE_TRAIN")
        limits["INPUT.LSJ.SIZE"] = inputs.LSJ.SIZE
    if side and (too_large := {key: value for key, value in limits.items() if value > side}):
        stated = ", ".join(f"{key} {value}" for key, value in too_large.items())
        problem = f"{NAME} pads images to {side} x {side} pixels, but {stated} allow larger ones"
        remedy = f"set them to {side}, or MODEL.TIMM.IMAGE_SIZE to the largest, or to 0 for any size"
        raise ConfigError(problem, where="MODEL.TIMM.IMAGE_SIZE", remedy=remedy)
    return backbone
