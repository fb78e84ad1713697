"""The weighted bidirectional pyramid of EfficientDet (Tan et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import Backbone
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-4  # of the paper's fast normalized fusion


class BiFPN(Backbone):
    """p2, p3, ... of a backbone's levels, and one level more, which is a max pooling of the last.

    Args:
        bottom_up: the backbone.
        in_features: its levels, finest first; the strides double from level to level.
        out_channels: of all levels.
        repeats: number of layers.
        norm: of all convolutions, see `detectron2.layers.get_norm`; "": none.
        square_pad: side in pixels to which images are padded; 0: multiples of the coarsest stride.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        *,
        repeats: int = 3,
        norm: str = "BN",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        self.bottom_up, self.in_features, self._square_pad = bottom_up, tuple(in_features), square_pad
        shapes = [bottom_up.output_shape()[name] for name in in_features]
        self.laterals = nn.ModuleList(
            Conv2d(shape.channels, out_channels, 1, bias=not norm, norm=get_norm(norm, out_channels))
            for shape in shapes
        )
        levels = len(shapes) + 1
        self.layers = nn.Sequential(*(BiFPNLayer(levels, out_channels, norm) for _ in range(repeats)))
        strides = [*(shape.stride for shape in shapes), 2 * shapes[-1].stride]
        self._out_feature_strides = {f"p{stride.bit_length() - 1}": stride for stride in strides}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Pixels of which the sides of an image must be multiples: the stride of the last level of the backbone."""
        return max(self._out_feature_strides.values()) // 2

    @property
    def padding_constraints(self) -> dict[str, int]:
        """See base class."""
        return {"size_divisibility": self.size_divisibility, "square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the pyramid.

        Args:
            x: (B, C, H, W) images.

        Returns:
            Level -> (B, out_channels, H / stride, W / stride), the last one rounded up.
        """
        features = self.bottom_up(x)
        levels = [lateral(features[name]) for lateral, name in zip(self.laterals, self.in_features, strict=True)]
        levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))  # as Detectron2's LastLevelMaxPool
        return dict(zip(self._out_features, self.layers(levels), strict=True))


class BiFPNLayer(nn.Module):
    """One pass down and one pass up, with the paper's fast normalized fusion.

    In the paper's words, with the levels i = 0 (finest) to n, in_i the inputs, and
    fuse(x, ...) = conv(swish(sum(relu(w) x) / (sum(relu(w)) + 0.0001))):

        td_n = in_n,   td_i = fuse(in_i, up(td_(i+1)))
        out_0 = td_0,  out_i = fuse(in_i, td_i, down(out_(i-1))),  out_n = fuse(in_n, down(out_(n-1)))

    up repeats pixels, down is a max pooling of 3 x 3; conv is separable, 3 x 3, with a norm.

    Args:
        levels: their number.
        channels: of all levels.
        norm: of the convolutions, see `detectron2.layers.get_norm`.
    """

    def __init__(self, levels: int, channels: int, norm: str) -> None:
        super().__init__()
        inner = range(levels - 1)
        self.down_weights = nn.ParameterList(nn.Parameter(torch.ones(2)) for _ in inner)
        self.down_convs = nn.ModuleList(_build_conv(channels, norm) for _ in inner)
        counts = [3] * (levels - 2) + [2]
        self.up_weights = nn.ParameterList(nn.Parameter(torch.ones(count)) for count in counts)
        self.up_convs = nn.ModuleList(_build_conv(channels, norm) for _ in inner)

    def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Fuse the levels.

        Args:
            inputs: (B, channels, h, w) of each level, finest first, each half as large as the one before, rounded up.

        Returns:
            Levels of the same shapes.
        """
        top_down = [inputs[-1]]
        for i in range(len(inputs) - 2, -1, -1):
            upsampled = F.interpolate(top_down[0], size=inputs[i].shape[-2:], mode="nearest")
            top_down.insert(0, self.down_convs[i](_fuse(self.down_weights[i], inputs[i], upsampled)))
        outputs = [top_down[0]]
        for i in range(1, len(inputs)):
            pooled = F.max_pool2d(outputs[-1], kernel_size=3, stride=2, padding=1)
            own = (inputs[i], top_down[i]) if i < len(inputs) - 1 else (inputs[i],)
            outputs.append(self.up_convs[i - 1](_fuse(self.up_weights[i - 1], *own, pooled)))
        return outputs


def _build_conv(channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        Conv2d(channels, channels, 1, bias=not norm, norm=get_norm(norm, channels)),
    )


def _fuse(weights: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
    weights = weights.relu()
    weighted = sum(weight * feature for weight, feature in zip(weights, maps, strict=True))
    return F.silu(weighted / (weights.sum() + EPSILON))
