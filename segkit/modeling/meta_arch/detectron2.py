"""The specs of Detectron2's own meta-architectures."""

from __future__ import annotations

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
