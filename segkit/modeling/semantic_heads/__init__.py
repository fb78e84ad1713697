"""Semantic heads, one file each; importing this package registers them with Detectron2."""

from segkit.modeling.semantic_heads.dice_fpn_head import DiceSemSegFPNHead

__all__ = ["DiceSemSegFPNHead"]
