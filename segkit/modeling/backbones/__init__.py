"""Backbones, one file each; importing this package registers them with Detectron2."""

from detectron2.projects.deeplab import build_resnet_deeplab_backbone

from segkit.modeling.backbones.torchvision_fpn import TorchvisionBackbone, build_torchvision_fpn_backbone
from segkit.modeling.backbones.unet import UNetEncoder, build_unet_backbone

__all__ = [
    "TorchvisionBackbone",
    "UNetEncoder",
    "build_resnet_deeplab_backbone",
    "build_torchvision_fpn_backbone",
    "build_unet_backbone",
]
