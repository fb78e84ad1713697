"""Swin (Liu et al. 2021) without a pyramid: Detectron2's network, with a fused attention."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SwinTransformer
from detectron2.modeling.backbone.swin import WindowAttention
from torch.nn import functional as F

from segkit.config import with_segkit_keys

RGB = 3
COARSEST_STRIDE = 32


class SwinBackbone(SwinTransformer):
    """The levels res2 to res5 of Detectron2's Swin, whose names of weights are those of Mask2Former's.

    The attention of a window is `scaled_dot_product_attention`: the same up to rounding.

    Args:
        **options: those of `detectron2.modeling.SwinTransformer`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._levels = {f"p{index}": f"res{index + 2}" for index in self.out_indices}
        self._out_features = [*self._levels.values()]
        self._out_feature_channels = {f"res{index + 2}": self.num_features[index] for index in self.out_indices}
        self._out_feature_strides = {f"res{index + 2}": 4 << index for index in self.out_indices}
        for layer in self.layers:
            for block in layer.blocks:
                block.attn.__class__ = FusedWindowAttention

    @property
    def size_divisibility(self) -> int:
        """Pixels of which the sides of an image should be multiples: the stride of res5."""
        return COARSEST_STRIDE

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the levels.

        Args:
            x: (B, C, H, W) images.

        Returns:
            Level -> (B, C, H / stride, W / stride), rounded up.
        """
        return {self._levels[name]: feature for name, feature in super().forward(x).items()}


class FusedWindowAttention(WindowAttention):
    """Attention in windows with relative positions, by `scaled_dot_product_attention`."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Attend.

        Args:
            x: (images * W, pixels, C) of windows.
            mask: (W, pixels, pixels), added to the logits of each image's W windows; None: 0.

        Returns:
            (images * W, pixels, C).
        """
        windows, pixels, channels = x.shape
        qkv = self.qkv(x).view(windows, pixels, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table, index = self.relative_position_bias_table, self.relative_position_index
        bias = table[index.flatten()].view(pixels, pixels, -1).permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None].to(bias.dtype)).repeat(windows // len(mask), 1, 1, 1)
        query, key, value = qkv.unbind()
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(qkv.dtype), scale=self.scale)
        return self.proj(attended.transpose(1, 2).reshape(windows, pixels, channels))


@BACKBONE_REGISTRY.register()
def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SwinBackbone:
    """Build the Swin of MODEL.SWIN without a pyramid, with res2 to res5."""
    options = with_segkit_keys(cfg).MODEL.SWIN
    return SwinBackbone(
        in_chans=input_shape.channels or RGB,
        embed_dim=options.EMBED_DIM,
        depths=[*options.DEPTHS],
        num_heads=[*options.NUM_HEADS],
        window_size=options.WINDOW_SIZE,
        drop_path_rate=options.DROP_PATH,
    )
