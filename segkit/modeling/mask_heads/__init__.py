"""Mask heads, one file each; importing this package registers them with Detectron2."""

from segkit.modeling.mask_heads.dice_mask_head import DiceMaskHead
from segkit.modeling.mask_heads.mask_scoring_head import MaskScoringHead
from segkit.modeling.mask_heads.point_rend import ImplicitPointRendMaskHead, PointRendMaskHead

__all__ = ["DiceMaskHead", "ImplicitPointRendMaskHead", "MaskScoringHead", "PointRendMaskHead"]
