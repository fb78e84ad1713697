"""The blocks of U-Net (Ronneberger et al. 2015), of its contracting and its expanding path."""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, get_norm
from torch import nn
from torch.nn import functional as F

from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError

SAME, VALID = "same", "valid"
BACKBONE, HEAD = "build_unet_backbone", "UNetHead"


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions with norm and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        padding: "same": the output has the size of the input; "valid": it is 4 pixels smaller.
        norm: name of the norm, see `detectron2.layers.get_norm`; "": none.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: str = SAME, norm: str = "") -> None:
        layers = []
        for channels in (in_channels, out_channels):
            layer = Conv2d(
                channels,
                out_channels,
                3,
                padding=int(padding == SAME),
                bias=not norm,
                norm=get_norm(norm, out_channels),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(layer)
            layers.append(layer)
        super().__init__(*layers)


def get_level_names(depth: int) -> list[str]:
    """Get the names of the levels of the contracting path.

    Args:
        depth: number of poolings.

    Returns:
        "enc1" (stride 1) to "enc<depth + 1>".
    """
    return [f"enc{number}" for number in range(1, depth + 2)]


def check_unet(cfg: CfgNode) -> None:
    """Check MODEL.UNET: valid padding moves the levels, so that only the whole network of 2015 can use them.

    Args:
        cfg: config with segkit's keys.

    Raises:
        ConfigError: a number is out of range, or valid padding is combined with other parts.
    """
    options, head = cfg.MODEL.UNET, cfg.MODEL.SEM_SEG_HEAD
    for key in ("CHANNELS", "DEPTH"):
        if options[key] < 1:
            raise ConfigError(f"expected a whole number above 0, got {options[key]}", where=f"MODEL.UNET.{key}")
    if options.PADDING not in (SAME, VALID):
        raise ConfigError(f"expected {SAME} or {VALID}, got {options.PADDING!r}", where="MODEL.UNET.PADDING")
    architecture = cfg.MODEL.META_ARCHITECTURE
    has_one_head = get_architecture_spec(architecture).targets == ("semantic",)
    expected = {
        "MODEL.META_ARCHITECTURE": (architecture, architecture if has_one_head else "SemanticSegmentor"),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, BACKBONE),
        "MODEL.SEM_SEG_HEAD.NAME": (head.NAME, HEAD),
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ([*head.IN_FEATURES], get_level_names(options.DEPTH)),
        "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (head.COMMON_STRIDE, 1),
        "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURES": ([*head.AUXILIARY.IN_FEATURES], []),
    }
    for key, (value, needed) in expected.items():
        if options.PADDING == VALID and value != needed:
            problem = f"MODEL.UNET.PADDING {VALID} needs {key} {needed}, got {value}"
            raise ConfigError(problem, remedy=f"set it, or MODEL.UNET.PADDING {SAME}")
