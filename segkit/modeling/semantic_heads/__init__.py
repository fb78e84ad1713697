"""Semantic heads, one file each, and Detectron2's DeepLab; importing this package registers them with Detectron2."""

from detectron2.projects.deeplab import DeepLabV3Head, DeepLabV3PlusHead

from segkit.modeling.semantic_heads.build import build_semantic_head
from segkit.modeling.semantic_heads.point_rend_head import PointRendSemSegHead
from segkit.modeling.semantic_heads.torchvision_deeplab import TorchvisionDeepLabV3Head
from segkit.modeling.semantic_heads.unet import UNetHead

__all__ = [
    "DeepLabV3Head",
    "DeepLabV3PlusHead",
    "PointRendSemSegHead",
    "TorchvisionDeepLabV3Head",
    "UNetHead",
    "build_semantic_head",
]
