"""The specs of Detectron2's own meta-architectures."""

from __future__ import annotations

from segkit.structures.architecture_spec import ArchitectureSpec, Count, Output, register_architecture

ROI_HEADS: dict[str, Count] = {"MODEL.ROI_HEADS.NUM_CLASSES": "things"}
RETINANET: dict[str, Count] = {"MODEL.RETINANET.NUM_CLASSES": "things"}
SEMANTIC_HEAD: dict[str, Count] = {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": "semantic_channels"}
PANOPTIC: tuple[Output, ...] = ("instances", "sem_seg", "panoptic_seg")

SPECS = (
    ArchitectureSpec("GeneralizedRCNN", targets=("instances",), outputs=("instances",), class_counts=ROI_HEADS),
    ArchitectureSpec("ProposalNetwork", targets=("instances",), outputs=()),
    ArchitectureSpec("RetinaNet", targets=("instances",), outputs=("instances",), class_counts=RETINANET),
    ArchitectureSpec("PanopticFPN", ("instances", "semantic"), PANOPTIC, ROI_HEADS | SEMANTIC_HEAD, "own"),
    ArchitectureSpec("SemanticSegmentor", targets=("semantic",), outputs=("sem_seg",), class_counts=SEMANTIC_HEAD),
    # of Detectron2's project of this name
    ArchitectureSpec("PanopticDeepLab", ("semantic", "panoptic"), PANOPTIC, SEMANTIC_HEAD, "own"),
)

for _spec in SPECS:
    register_architecture(_spec)
