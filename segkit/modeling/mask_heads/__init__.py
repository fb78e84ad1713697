"""Mask heads, one file each; importing this package registers them with Detectron2."""

from segkit.modeling.mask_heads.dice_mask_head import DiceMaskHead

__all__ = ["DiceMaskHead"]
