"""Backbones; importing this package registers them with Detectron2."""

from detectron2.projects.deeplab import build_resnet_deeplab_backbone

from segkit.modeling.backbones import detectron2_networks, swin, timm_pyramids
from segkit.modeling.backbones.unet import UNetEncoder, build_unet_backbone

__all__ = [
    "UNetEncoder",
    "build_resnet_deeplab_backbone",
    "build_unet_backbone",
    "detectron2_networks",
    "swin",
    "timm_pyramids",
]
