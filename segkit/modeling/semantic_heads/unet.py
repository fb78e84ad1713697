"""The expanding path of U-Net (Ronneberger et al. 2015) over the levels of any backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn
from torch.nn import functional as F

from segkit.config import with_segkit_keys
from segkit.modeling.postprocessing.resampling import crop
from segkit.modeling.semantic_losses import SemanticLosses, attach_losses
from segkit.modeling.unet import SAME, VALID, DoubleConvolution, check_unet
from segkit.utils.errors import ConfigError

LEAST_CHANNELS = 16  # of stages without a skip connection, which halve the channels


@SEM_SEG_HEADS_REGISTRY.register()
class UNetHead(nn.Module):
    """From the coarsest level upwards: up-convolution, the finer level beside it, two 3x3 convolutions.

    Stages without a skip connection follow until `common_stride`; `forward` enlarges the logits by it. On
    `build_unet_backbone` this is the network of 2015. Parameters: `decoder.<level>.{up,convs}` and `predictor`.

    Args:
        input_shape: level -> channels and stride.
        num_classes: channels of the logits.
        common_stride: stride of the logits; the finest level's stride, or that divided by a power of two.
        channels: of the stages from coarse to fine; empty: those of the finer level, as in 2015.
        padding: "same"; "valid" crops the skip connections to the smaller maps, as in 2015.
        norm: name of the norm; "": none, as in 2015.
        loss_weight: factor of the losses.
        ignore_value: label of the pixels without a label.

    Raises:
        ConfigError: strides or channels do not fit together.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        common_stride: int = 1,
        channels: Sequence[int] = (),
        padding: str = SAME,
        norm: str = "",
        loss_weight: float = 1.0,
        ignore_value: int = 255,
    ) -> None:
        super().__init__()
        levels = sorted(input_shape.items(), key=lambda item: item[1].stride)[::-1]
        self.in_features = [name for name, _ in levels]
        self.common_stride, self.ignore_value, self.loss_weight = common_stride, ignore_value, loss_weight
        stages = _plan_stages(levels, common_stride, channels)
        self.decoder = nn.ModuleDict({name: _UpStage(*sizes, padding, norm) for name, sizes in stages.items()})
        last_channels = [levels[0][1].channels, *(sizes[2] for sizes in stages.values())][-1]
        self.predictor = Conv2d(last_channels, num_classes, 1)
        weight_init.c2_msra_fill(self.predictor)
        losses = SemanticLosses(
            ["cross_entropy"], stride=common_stride, ignore_value=ignore_value, weight=loss_weight, classes=num_classes
        )
        self.losses: Any
        attach_losses(self, losses)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of the constructor for a config."""
        cfg = with_segkit_keys(cfg)
        check_unet(cfg)
        options = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {level: input_shape[level] for level in options.IN_FEATURES},
            "num_classes": options.NUM_CLASSES,
            "common_stride": options.COMMON_STRIDE,
            "channels": cfg.MODEL.UNET.DECODER_CHANNELS,
            "padding": cfg.MODEL.UNET.PADDING,
            "norm": options.NORM,
            "loss_weight": options.LOSS_WEIGHT,
            "ignore_value": options.IGNORE_VALUE,
        }

    def forward(self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None) -> Any:
        """Compute losses in training, otherwise logits.

        Args:
            features: level -> (B, C, h, w).
            targets: (B, H, W) int64 channels, in training.

        Returns:
            (None, losses by name) in training, otherwise ((B, num_classes, H, W) logits, {}).
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets)
        if self.common_stride != 1:
            logits = F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)
        return logits, {}

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the logits of `common_stride`.

        Args:
            features: level -> (B, C, h, w).

        Returns:
            (B, num_classes, h, w).
        """
        x = features[self.in_features[0]]
        for name, stage in self.decoder.items():
            x = stage(x, features[name] if name in self.in_features else None)
        return self.predictor(x)


class _UpStage(nn.Module):
    """One step upwards; without a skip connection if `skip_channels` is 0."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, ratio: int, padding: str, norm: str
    ) -> None:
        super().__init__()
        self.padding = padding
        self.up = nn.ConvTranspose2d(in_channels, out_channels, ratio, stride=ratio)
        weight_init.c2_msra_fill(self.up)
        self.convs = DoubleConvolution(out_channels + skip_channels, out_channels, padding, norm)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        x = self.up(x)
        if skip is not None and self.padding == VALID:
            top, left = ((skip.shape[dim] - x.shape[dim]) // 2 for dim in (2, 3))
            skip = crop(skip, x.shape[2], x.shape[3], top, left)
        elif skip is not None:  # sizes are rounded up from level to level
            x = crop(x, skip.shape[2], skip.shape[3])
        return self.convs(x if skip is None else torch.cat([skip, x], dim=1))


def _plan_stages(
    levels: Sequence[tuple[str, ShapeSpec]], common_stride: int, channels: Sequence[int]
) -> dict[str, tuple[int, int, int, int]]:
    """Name -> channels of input, skip connection and output, and ratio of the strides, from coarse to fine."""
    in_channels, stride = levels[0][1].channels, levels[0][1].stride
    if channels and len(channels) != len(levels) - 1:
        problem = f"expected {len(levels) - 1} numbers, one for each level but the coarsest, got {[*channels]}"
        raise ConfigError(problem, where="MODEL.UNET.DECODER_CHANNELS")
    stages = {}
    for number, (name, shape) in enumerate(levels[1:]):
        out_channels = channels[number] if channels else shape.channels
        if stride % shape.stride:
            problem = f"the strides {stride} and {shape.stride} of two levels are no multiples"
            raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD.IN_FEATURES")
        stages[name] = in_channels, shape.channels, out_channels, stride // shape.stride
        in_channels, stride = out_channels, shape.stride
    while stride > common_stride and stride % 2 == 0:
        stride, out_channels = stride // 2, max(in_channels // 2, LEAST_CHANNELS)
        stages[f"stride{stride}"] = in_channels, 0, out_channels, 2
        in_channels = out_channels
    if stride != common_stride:
        finest = levels[-1][1].stride
        problem = f"expected the stride {finest} of the finest level, or a half, a quarter, ..., got {common_stride}"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD.COMMON_STRIDE", remedy=f"set it to {finest}")
    return stages
