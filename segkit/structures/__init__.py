"""The data types that packages exchange."""

from segkit.structures.categories import (
    IGNORE_LABEL,
    NO_THING,
    THING_CHANNEL,
    Category,
    CategorySet,
    SemanticSpace,
    default_color,
)
from segkit.structures.head_outputs import CenterOffsets, HeadOutputs, QueryLogits, SemanticScores
from segkit.structures.id_runs import VOID, Extent, IdRuns
from segkit.structures.instances import (
    InstanceColumns,
    InstanceMasks,
    compute_areas_px,
    crop_to_rle,
    mask_to_rle,
    rle_to_mask,
    segmentation_to_rle,
)
from segkit.structures.panoptic import (
    MAX_SEGMENT_ID,
    ImageId,
    PanopticSegmentation,
    Segment,
    ids_to_rgb,
    rgb_to_ids,
)

__all__ = [
    "IGNORE_LABEL",
    "MAX_SEGMENT_ID",
    "NO_THING",
    "THING_CHANNEL",
    "VOID",
    "Category",
    "CategorySet",
    "CenterOffsets",
    "Extent",
    "HeadOutputs",
    "IdRuns",
    "ImageId",
    "InstanceColumns",
    "InstanceMasks",
    "PanopticSegmentation",
    "QueryLogits",
    "Segment",
    "SemanticScores",
    "SemanticSpace",
    "compute_areas_px",
    "crop_to_rle",
    "default_color",
    "ids_to_rgb",
    "mask_to_rle",
    "rgb_to_ids",
    "rle_to_mask",
    "segmentation_to_rle",
]
