"""Backbones, one file each; importing this package registers them with Detectron2."""

from segkit.modeling.backbones.torchvision_fpn import TorchvisionBackbone, build_torchvision_fpn_backbone

__all__ = ["TorchvisionBackbone", "build_torchvision_fpn_backbone"]
