"""The contracting path of U-Net (Ronneberger et al. 2015) as a backbone that is trained from scratch."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch.nn import functional as F

from segkit.config import with_segkit_keys
from segkit.modeling.unet import SAME, VALID, DoubleConvolution, check_unet, get_level_names
from segkit.utils.errors import ConfigError

CONVOLUTIONS = 4  # pixels that two valid 3x3 convolutions take away


class UNetEncoder(Backbone):
    """Levels enc1, enc2, ... of strides 1, 2, ...: two convolutions each, and poolings between them.

    With valid padding, the image is mirrored at its edges, so that the output of `UNetHead` covers it: the network of
    2015 takes an image of 388 pixels as 572, of which 92 on each side are mirrored. Levels then begin left of and above
    the image.

    Args:
        in_channels: channels of the image.
        channels: of enc1; each further level has twice as many.
        depth: number of poolings.
        padding: of the convolutions, "same" or "valid".
        norm: name of the norm; "": none, as in 2015.
    """

    def __init__(
        self, in_channels: int = 3, channels: int = 64, depth: int = 4, padding: str = SAME, norm: str = ""
    ) -> None:
        super().__init__()
        self.depth, self.padding = depth, padding
        self._out_features = get_level_names(depth)
        for number, name in enumerate(self._out_features):
            self.add_module(name, DoubleConvolution(in_channels, channels << number, padding, norm))
            in_channels = channels << number
        self._out_feature_channels = {name: channels << number for number, name in enumerate(self._out_features)}
        self._out_feature_strides = {name: 1 << number for number, name in enumerate(self._out_features)}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the feature maps.

        Args:
            x: (B, C, H, W) float, of any size: images are not padded to multiples of a stride, because a network that
                has seen few padded edges segments nonsense beside them.

        Returns:
            Level -> (B, channels, h, w), h and w rounded up from level to level for "same", down for "valid".
        """
        if self.padding == VALID:
            x = mirror_edges(x, self.depth)
        features = {}
        for number, name in enumerate(self._out_features):
            x = self.get_submodule(name)(F.max_pool2d(x, 2, ceil_mode=self.padding == SAME) if number else x)
            features[name] = x
        return features


def mirror_edges(images: torch.Tensor, depth: int) -> torch.Tensor:
    """Pad images so that a U-Net of valid convolutions gives at least their size, with the same top left corner.

    With c pixels after the lowest convolutions, the output has 2^d c - 4 (2^d - 1) pixels, as each upward step doubles
    and takes away 4; the input has 12 2^d - 8 more.

    Args:
        images: (B, C, H, W).
        depth: d, the number of poolings.

    Returns:
        (B, C, H', W'), mirrored at the edges, as often as needed, without repeating the edge itself.
    """
    factor = 1 << depth
    margin = (3 * CONVOLUTIONS * factor - 2 * CONVOLUTIONS) // 2
    for dim in (2, 3):
        length, lost = images.shape[dim], CONVOLUTIONS * (factor - 1)
        output = -(-(length + lost) // factor) * factor - lost
        period = max(2 * (length - 1), 1)
        positions = torch.arange(-margin, output + margin, device=images.device).remainder(period)
        images = images.index_select(dim, torch.minimum(positions, period - positions).clamp(max=length - 1))
    return images


@BACKBONE_REGISTRY.register()
def build_unet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> UNetEncoder:
    """Build the contracting path of MODEL.UNET; with `UNetHead` it is the network of 2015."""
    cfg = with_segkit_keys(cfg)
    check_unet(cfg)
    options = cfg.MODEL.UNET
    try:
        return UNetEncoder(input_shape.channels, options.CHANNELS, options.DEPTH, options.PADDING, options.NORM)
    except (KeyError, ValueError) as error:  # of norms
        problem = f"MODEL.UNET.NORM {options.NORM!r} is not possible with {options.CHANNELS} channels: {error}"
        raise ConfigError(problem, remedy='choose "BN" or "", or MODEL.UNET.CHANNELS of a multiple of 32') from error
