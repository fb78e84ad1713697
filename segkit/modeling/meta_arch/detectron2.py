"""The specs of Detectron2's own meta-architectures, and a clear error for class counts that are still open."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import GeneralizedRCNN, RetinaNet, SemanticSegmentor

from segkit.config import check_class_counts
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
    # of Detectron2's project of this name
    ArchitectureSpec("PanopticDeepLab", ("semantic", "panoptic"), PANOPTIC, ROI_HEADS | SEMANTIC_HEAD, "own"),
)

for spec in SPECS:
    register_architecture(spec)


def _check_counts_first(architecture: Any) -> None:
    """Let `from_config` check the class counts: torch would say "negative dimension -4"."""
    build_arguments = architecture.from_config.__func__

    def from_config(cls: Any, cfg: Any) -> Any:
        check_class_counts(cfg)
        return build_arguments(cls, cfg)

    architecture.from_config = classmethod(from_config)


for architecture in (GeneralizedRCNN, RetinaNet, SemanticSegmentor):  # PanopticFPN and PanopticRCNN call the first
    _check_counts_first(architecture)
