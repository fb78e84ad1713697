"""Swin (Liu et al. 2021) without a pyramid: Detectron2's network, with a fused attention, for images of any size.

What depends on the size is computed by whole numbers and without conditions, so that torch.export can follow it.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SwinTransformer
from detectron2.modeling.backbone.swin import BasicLayer, SwinTransformerBlock, WindowAttention
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segkit.config import with_segkit_keys
from segkit.modeling.postprocessing.resampling import crop

RGB = 3
COARSEST_STRIDE = 32
SEPARATE = -100.0  # a logit, as in the official code


class SwinBackbone(SwinTransformer):
    """The levels res2 to res5 of Detectron2's Swin, whose names of weights are those of Mask2Former's.

    The attention of a window is `scaled_dot_product_attention`: the same up to rounding.

    Args:
        **options: those of `detectron2.modeling.SwinTransformer`.

    Attributes:
        window_size: side of a window in pixels of each level.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._levels = {f"p{index}": f"res{index + 2}" for index in self.out_indices}
        self._out_features = [*self._levels.values()]
        self._out_feature_channels = {f"res{index + 2}": self.num_features[index] for index in self.out_indices}
        self._out_feature_strides = {f"res{index + 2}": 4 << index for index in self.out_indices}
        self.window_size: int = self.layers[0].window_size
        for layer in self.layers:
            layer.__class__ = WindowLayer
            for block in layer.blocks:
                block.__class__, block.attn.__class__ = WindowBlock, FusedWindowAttention

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


class WindowLayer(BasicLayer):
    """Blocks whose windows are shifted in turns, and the merging of patches after them."""

    def forward(self, x: torch.Tensor, height: int, width: int) -> tuple[Any, ...]:
        """Run the blocks.

        Args:
            x: (B, height * width, C).
            height: of the feature map.
            width: of the feature map.

        Returns:
            The result and its sides, then the merged patches and their sides.
        """
        mask = build_shift_mask((height, width), self.window_size, self.shift_size, x.device)
        for block in self.blocks:
            block.H, block.W = height, width
            x = checkpoint(block, x, mask, use_reentrant=False) if self.use_checkpoint else block(x, mask)
        if self.downsample is None:
            return x, height, width, x, height, width
        return x, height, width, self.downsample(x, height, width), (height + 1) // 2, (width + 1) // 2


class WindowBlock(SwinTransformerBlock):
    """Attention in windows, and two linear layers."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the block.

        Args:
            x: (B, H * W, C), with the sides of the attributes H and W.
            mask: of `build_shift_mask`.

        Returns:
            (B, H * W, C).
        """
        side, shift = self.window_size, self.shift_size
        down, right = (count_windows(length, side) * side - length for length in (self.H, self.W))
        maps = F.pad(self.norm1(x).unflatten(1, (self.H, self.W)), (0, 0, 0, right, 0, down))
        if shift:
            maps = maps.roll((-shift, -shift), (1, 2))
        windows = split_windows(maps, side)  # (B, rows, columns, side, side, C)
        attended = self.attn(windows.flatten(3, 4).flatten(0, 2), mask if shift else None)
        maps = attended.view(windows.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if shift:
            maps = maps.roll((shift, shift), (1, 2))
        x = x + self.drop_path(crop(maps[None], self.H, self.W)[0].flatten(1, 2))
        return x + self.drop_path(self.mlp(self.norm2(x)))


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
        windows, pixels, _ = x.shape
        qkv = self.qkv(x).view(windows, pixels, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table, index = self.relative_position_bias_table, self.relative_position_index
        bias = table[index.flatten()].view(pixels, pixels, -1).permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None].to(bias.dtype)).repeat(windows // mask.shape[0], 1, 1, 1)
        query, key, value = qkv.unbind()
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(qkv.dtype), scale=self.scale)
        # A copy: what torch.export makes of the attention has another layout, of which a view may be impossible.
        merged = attended.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return self.proj(merged.flatten(2))


def count_windows(length: int, side: int) -> int:
    """Windows along an axis of `length` pixels, which is padded to whole ones."""
    return (length + side - 1) // side


def split_windows(maps: torch.Tensor, side: int) -> torch.Tensor:
    """(B, rows, columns, side, side, C): the windows of maps, (B, H, W, C), whose sides are multiples of theirs."""
    rows, columns = (length // side for length in maps.shape[1:3])
    return maps.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)


def build_shift_mask(size_hw: tuple[int, int], side: int, shift: int, device: torch.device) -> torch.Tensor:
    """Keep pixels apart that shifted windows bring together from opposite sides of the image.

    Args:
        size_hw: of the feature map.
        side: of a window.
        shift: of the windows, in pixels.
        device: of the result.

    Returns:
        (W, side * side, side * side): of each of the W windows, 0 for pixels of one part of the image, otherwise -100.
    """
    rows, columns = (_number_parts(count_windows(length, side) * side, side, shift, device) for length in size_hw)
    parts = (3 * rows[:, None] + columns)[None, :, :, None]
    parts = split_windows(parts, side).flatten(3, 5).flatten(0, 2)
    return (parts[:, None] != parts[:, :, None]) * SEPARATE


def _number_parts(length: int, side: int, shift: int, device: torch.device) -> torch.Tensor:
    """(length,) int64: 0, 1 in the last window, 2 in its end that comes from the other side."""
    places = torch.arange(length, device=device)
    return (places >= length - side).long() + (places >= length - shift).long()


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
