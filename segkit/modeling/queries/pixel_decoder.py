"""The pixel decoder of Mask2Former: deformable attention over three levels, and an FPN step to the finest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import nn
from torch.nn import functional as F

from segkit.modeling.queries.deformable_attention import MultiScaleDeformableAttention, Sizes
from segkit.modeling.queries.positions import build_sine_positions
from segkit.utils.errors import ConfigError

LEVELS, POINTS = 3, 4  # of the deformable attention
GROUPS = 32  # of the norm after input projections


class DeformablePixelDecoder(nn.Module):
    """Levels of one width for the queries, and features of stride 4 for their masks (Cheng et al. 2022, section 3.2.2).

    Names, arithmetic and start values are those of Mask2Former's MSDeformAttnPixelDecoder
    (mask2former/modeling/pixel_decoder/msdeformattn.py).

    Args:
        input_shapes: level -> channels and stride, finest first: the four levels that are used; the strides double.
        channels: of all outputs, a multiple of 32 and of the heads.
        layers: of the deformable attention.
        heads: of each layer.
        feedforward: channels of the hidden layer after each attention.
        norm: of the convolutions of the FPN step, see `detectron2.layers.get_norm`.

    Raises:
        ConfigError: another number of levels, or strides that do not double.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        channels: int = 256,
        *,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 1024,
        norm: str = "GN",
    ) -> None:
        super().__init__()
        strides = [shape.stride or 0 for shape in input_shapes.values()]
        if len(strides) != LEVELS + 1 or any(b != 2 * a for a, b in pairwise(strides)):
            stated = ", ".join(f"{name} (stride {stride})" for name, stride in zip(input_shapes, strides, strict=True))
            problem = f"expected {LEVELS + 1} levels whose strides double, finest first, got {stated or 'none'}"
            remedy = "set it to such levels of the backbone, as [res2, res3, res4, res5]"
            raise ConfigError(problem, where="MODEL.MASK2FORMER.IN_FEATURES", remedy=remedy)
        self.finest, *self.in_features = input_shapes
        self.in_features.reverse()  # coarsest first, as all lists of levels here
        self.input_proj = nn.ModuleList(
            _build_projection(input_shapes[name].channels, channels) for name in self.in_features
        )
        self.transformer = DeformableTransformer(channels, layers, heads, feedforward)
        self.adapter_1 = _build_convolution(input_shapes[self.finest].channels, channels, 1, norm)
        self.layer_1 = _build_convolution(channels, channels, 3, norm, activation=F.relu)
        self.mask_features = nn.Conv2d(channels, channels, 1)
        weight_init.c2_xavier_fill(self.mask_features)

    def forward(self, features: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Decode, always in the precision of the weights: autocast is off.

        Args:
            features: level -> (N, C, h, w) of the backbone.

        Returns:
            (the three coarser levels (N, channels, h, w), coarsest first; mask features (N, channels, h, w) of the
            finest level).
        """
        device, dtype = self.mask_features.weight.device, self.mask_features.weight.dtype
        with torch.autocast(device.type, enabled=False):
            sources = [
                projection(features[name].to(dtype))
                for name, projection in zip(self.in_features, self.input_proj, strict=True)
            ]
            levels = self.transformer(sources)
            lateral = self.adapter_1(features[self.finest].to(dtype))
            upsampled = F.interpolate(levels[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
            return levels, self.mask_features(self.layer_1(lateral + upsampled))


class DeformableTransformer(nn.Module):
    """Layers of deformable attention over all levels.

    Args:
        channels: of the levels.
        layers: their number.
        heads: of each layer.
        feedforward: channels of the hidden layer after each attention.
    """

    def __init__(self, channels: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(LEVELS, channels).normal_())
        stack = (DeformableLayer(channels, heads, feedforward) for _ in range(layers))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stack)})

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Let the pixels of all levels attend to each other.

        Args:
            levels: (N, C, h, w) of each level.

        Returns:
            Levels of the same shapes.
        """
        sizes_hw = [(level.shape[2], level.shape[3]) for level in levels]
        pixels = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        positions = torch.cat([_build_positions(size_hw, pixels) for size_hw in sizes_hw])
        embeddings = [
            build_sine_positions(size_hw, pixels.shape[2], pixels).flatten(0, 1) + embedding
            for size_hw, embedding in zip(sizes_hw, self.level_embed, strict=True)
        ]
        embedding = torch.cat(embeddings)
        layers: Any = self.encoder["layers"]
        for layer in layers:
            pixels = layer(pixels, embedding, positions, sizes_hw)
        counts = [height * width for height, width in sizes_hw]
        outputs = zip(pixels.split(counts, dim=1), sizes_hw, strict=True)
        return [output.transpose(1, 2).unflatten(2, size_hw) for output, size_hw in outputs]


class DeformableLayer(nn.Module):
    """Deformable attention and two linear layers, with a norm after each.

    Args:
        channels: of the pixels.
        heads: of the attention.
        feedforward: channels of the hidden layer.
    """

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(channels, LEVELS, heads, POINTS)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, pixels: torch.Tensor, embedding: torch.Tensor, positions: torch.Tensor, sizes_hw: Sizes
    ) -> torch.Tensor:
        """Attend.

        Args:
            pixels: (N, S, C) of all levels.
            embedding: (S, C) of their positions.
            positions: (S, 2) x and y, as shares of the image.
            sizes_hw: height and width of each level.

        Returns:
            (N, S, C).
        """
        pixels = self.norm1(pixels + self.self_attn(pixels + embedding, positions, pixels, sizes_hw))
        return self.norm2(pixels + self.linear2(F.relu(self.linear1(pixels))))


def _build_projection(in_channels: int | None, channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels or 0, channels, 1)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, channels))


def _build_convolution(
    in_channels: int | None, channels: int, kernel: int, norm: str, activation: Any = None
) -> Conv2d:
    convolution = Conv2d(
        in_channels,
        channels,
        kernel,
        padding=kernel // 2,
        bias=not norm,
        norm=get_norm(norm, channels),
        activation=activation,
    )
    weight_init.c2_xavier_fill(convolution)
    return convolution


def _build_positions(size_hw: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """(H * W, 2): x and y of the middles of the pixels, as shares of the level."""
    height, width = size_hw
    rows = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    columns = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=2).flatten(0, 1)
