"""The specs of Detectron2's own meta-architectures."""

from __future__ import annotations

from segkit.structures.architecture_spec import ArchitectureSpec, register_architecture

ROI_HEADS = "MODEL.ROI_HEADS.NUM_CLASSES"
SEMANTIC_HEAD = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"

SPECS = (
    ArchitectureSpec(
        "GeneralizedRCNN",
        targets=frozenset({"instances"}),
        outputs=frozenset({"instances"}),
        class_counts={ROI_HEADS: "things"},
    ),
    ArchitectureSpec("ProposalNetwork", targets=frozenset({"instances"}), outputs=frozenset()),
    ArchitectureSpec(
        "RetinaNet",
        targets=frozenset({"instances"}),
        outputs=frozenset({"instances"}),
        class_counts={"MODEL.RETINANET.NUM_CLASSES": "things"},
    ),
    ArchitectureSpec(
        "PanopticFPN",
        targets=frozenset({"instances", "semantic"}),
        outputs=frozenset({"instances", "sem_seg", "panoptic_seg"}),
        class_counts={ROI_HEADS: "things", SEMANTIC_HEAD: "semantic_channels"},
        postprocessing="own",
    ),
    ArchitectureSpec(
        "SemanticSegmentor",
        targets=frozenset({"semantic"}),
        outputs=frozenset({"sem_seg"}),
        class_counts={SEMANTIC_HEAD: "semantic_channels"},
    ),
    ArchitectureSpec(  # of Detectron2's project of this name
        "PanopticDeepLab",
        targets=frozenset({"semantic", "panoptic"}),
        outputs=frozenset({"instances", "sem_seg", "panoptic_seg"}),
        class_counts={SEMANTIC_HEAD: "semantic_channels"},
        postprocessing="own",
    ),
)

for _spec in SPECS:
    register_architecture(_spec)
