"""The specs of Detectron2's own meta-architectures, checks of their configs, and the semantic heads of segkit."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import GeneralizedRCNN, PanopticFPN, RetinaNet, SemanticSegmentor, build_backbone

from segkit.config import check_class_counts, with_segkit_keys
from segkit.modeling.semantic_heads.build import build_semantic_head, complete_head
from segkit.modeling.semantic_heads.checks import check_deeplab_backbone
from segkit.structures.architecture_spec import (
    PANOPTIC,
    RETINANET,
    ROI_HEADS,
    SEMANTIC_HEAD,
    ArchitectureSpec,
    register_architecture,
)

SPECS = (
    ArchitectureSpec("GeneralizedRCNN", ("instances",), ("instances",), ROI_HEADS),
    ArchitectureSpec("ProposalNetwork", ("instances",), (), ROI_HEADS),
    ArchitectureSpec("RetinaNet", ("instances",), ("instances",), ROI_HEADS | RETINANET),
    ArchitectureSpec("PanopticFPN", ("instances", "semantic"), PANOPTIC, ROI_HEADS | SEMANTIC_HEAD, "own"),
    ArchitectureSpec("SemanticSegmentor", ("semantic",), ("sem_seg",), SEMANTIC_HEAD),
)

for spec in SPECS:
    register_architecture(spec)


def _check_first(architecture: Any, build_arguments: Any) -> None:
    """Let `from_config` check the config before it builds: torch would say "negative dimension -4"."""

    def from_config(cls: Any, cfg: Any) -> Any:
        check_class_counts(cfg)
        check_deeplab_backbone(with_segkit_keys(cfg))
        return build_arguments(cls, cfg)

    architecture.from_config = classmethod(from_config)


def _build_segmentor(_cls: Any, cfg: Any) -> dict[str, Any]:
    """As SemanticSegmentor.from_config, with the losses of the config."""
    backbone = build_backbone(cfg)
    head = build_semantic_head(cfg, backbone.output_shape())
    pixels = {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}
    return {"backbone": backbone, "sem_seg_head": head, **pixels}


def _complete_panoptic_fpn(_cls: Any, cfg: Any, build_arguments: Any = PanopticFPN.from_config.__func__) -> Any:
    """As PanopticFPN.from_config, with the losses of the config."""
    arguments = build_arguments(PanopticFPN, cfg)
    complete_head(with_segkit_keys(cfg), arguments["sem_seg_head"], arguments["backbone"].output_shape())
    return arguments


_check_first(GeneralizedRCNN, GeneralizedRCNN.from_config.__func__)  # PanopticFPN and PanopticRCNN call it
_check_first(RetinaNet, RetinaNet.from_config.__func__)
_check_first(SemanticSegmentor, _build_segmentor)
PanopticFPN.from_config = classmethod(_complete_panoptic_fpn)
