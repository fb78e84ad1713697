"""Metrics of predictions: PQ, video PQ, box, mask and boundary AP, Cityscapes' AP, semantic IoU, Dice, NSD.

Each metric takes one image at a time with `update`, keeps counts instead of masks, joins shards with `merge` and
computes its results in percent with `compute`: equal to its reference's, and None if they are not defined.
"""

from segkit.metrics.average_precision import AveragePrecision
from segkit.metrics.cityscapes_ap import CityscapesAP
from segkit.metrics.panoptic_quality import PanopticQuality
from segkit.metrics.semantic_iou import SemanticIoU
from segkit.metrics.video_panoptic_quality import VideoPanopticQuality
from segkit.metrics.volume_dice import VolumeDice
from segkit.metrics.volume_nsd import VolumeNSD
from segkit.metrics.volume_scores import VolumeScores

__all__ = [
    "AveragePrecision",
    "CityscapesAP",
    "PanopticQuality",
    "SemanticIoU",
    "VideoPanopticQuality",
    "VolumeDice",
    "VolumeNSD",
    "VolumeScores",
]
