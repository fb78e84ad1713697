"""Any network of timm as the bottom of a pyramid: its feature maps by stride, with timm's names of the weights."""

from __future__ import annotations

from typing import Any

import timm
import torch
from detectron2.modeling import Backbone
from timm.layers import freeze_batch_norm_2d

from segkit.normalization import find_timm_config
from segkit.utils.errors import ConfigError

FROZEN_BN = "FrozenBN"
COARSEST_STRIDE = 32
# Options by which timm's transformers take images of any size, tried in this order; others take any size, or one.
FLEXIBLE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class TimmBackbone(Backbone):
    """The last feature map of each stride of a timm network: res1 (stride 2) to res5 (stride 32), if it has them.

    Channels and strides are timm's. A plain ViT has one map, of the stride of its patches. The weights are those of
    `timm.create_model(name)` with the prefix `network.`, without the classifier. They are random; `load_timm_weights`
    fills them.

    Args:
        name: of the network, with or without the tag of its weights.
        channels: of the images.
        image_format: INPUT.FORMAT; BGR images are turned to RGB, which timm's weights expect.
        norm: MODEL.TIMM.NORM.
        output_stride: MODEL.TIMM.OUTPUT_STRIDE; below 32, res5 and maybe res4 have this stride.
        patch_size: MODEL.TIMM.PATCH_SIZE.
        image_size: MODEL.TIMM.IMAGE_SIZE.
        drop_path: MODEL.TIMM.DROP_PATH.

    Attributes:
        square_size: the only side in pixels that the network takes; 0: it takes all multiples of `size_divisibility`.

    Raises:
        ConfigError: the name or the norm is unknown, the network lacks an option, or a stride is no power of 2.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int = 3,
        image_format: str = "RGB",
        norm: str = "",
        output_stride: int = COARSEST_STRIDE,
        patch_size: int = 0,
        image_size: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        self._flips = image_format == "BGR" and channels == 3
        self._options: dict[str, Any] = {"in_chans": channels}
        given = {"patch_size": patch_size, "img_size": image_size, "drop_path_rate": drop_path}
        self._options |= {option: value for option, value in given.items() if value}
        if output_stride != COARSEST_STRIDE:
            self._options["output_stride"] = output_stride
        self.network, self.square_size = self._choose_options()
        indices = _find_levels(self.network.feature_info, name, output_stride)
        self._indices = list(indices.values())
        infos = [self.network.feature_info[index] for index in self._indices]
        self._out_features = list(indices)
        self._out_feature_channels = dict(zip(indices, (info["num_chs"] for info in infos), strict=True))
        self._out_feature_strides = dict(zip(indices, (info["reduction"] for info in infos), strict=True))
        self.stage_names = [info["module"] for info in infos]
        if hasattr(self.network, "prune_intermediate_layers"):  # without the layers above the last feature map
            self._indices = self.network.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        if norm not in ("", FROZEN_BN):
            raise ConfigError(f"expected {FROZEN_BN} or an empty text, got {norm!r}", where="MODEL.TIMM.NORM")
        if norm == FROZEN_BN:
            self.network = freeze_batch_norm_2d(self.network)

    def build_whole_network(self) -> Any:
        """Build the network with random weights as `timm.create_model` does, with all layers but the classifier.

        Returns:
            The network.
        """
        return timm.create_model(self.name, num_classes=0, **self._options)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the feature maps.

        Args:
            x: (B, channels, H, W) float, H and W multiples of `size_divisibility`, or both `square_size`.

        Returns:
            Level -> (B, C, H / stride, W / stride).

        Raises:
            ConfigError: the network does not take this size.
        """
        height, width = x.shape[-2:]
        divisor, side = self.size_divisibility, self.square_size
        if side and (height, width) != (side, side):
            self._refuse_size(x, f"{side} x {side} pixels")
        if height % divisor or width % divisor:
            self._refuse_size(x, f"multiples of {divisor} pixels")
        try:
            features = self.network.forward_intermediates(
                x.flip(1) if self._flips else x, indices=self._indices, output_fmt="NCHW", intermediates_only=True
            )
        except AssertionError as error:
            self._refuse_size(x, f"a size that it takes ({error})")
        return dict(zip(self._out_features, features, strict=True))

    @property
    def size_divisibility(self) -> int:
        """Pixels of which the sides of an image must be multiples: the largest stride, or `square_size`."""
        return self.square_size or max(self._out_feature_strides.values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """See base class."""
        return {"size_divisibility": self.size_divisibility, "square_size": self.square_size}

    def _choose_options(self) -> tuple[Any, int]:
        """The network for images of any size, if it has an option for it, and `square_size`."""
        known, options = find_timm_config(self.name), self._options
        problem = ""
        for flexible in FLEXIBLE:
            self._options = {**options, **flexible}
            try:
                network = self.build_whole_network()
            except (TypeError, AssertionError, NotImplementedError) as error:
                problem = problem if flexible else f"{type(error).__name__}: {error}"
                continue
            if not hasattr(network, "forward_intermediates"):
                remedy = "choose another network, or a newer timm"
                raise ConfigError(f"timm {timm.__version__} gives no feature maps of {self.name}", remedy=remedy)
            is_fixed = known.get("fixed_input_size") and not flexible
            return network, options.get("img_size", known["input_size"][-1]) if is_fixed else 0
        stated = ", ".join(f"{option}={value}" for option, value in options.items())
        remedy = "leave out the key of MODEL.TIMM that the network lacks, or choose another network"
        raise ConfigError(f"timm's {self.name} cannot be built with {stated} ({problem})", remedy=remedy)

    def _refuse_size(self, x: torch.Tensor, expected: str) -> None:
        problem = f"timm's {self.name} expects images of {expected}, got {x.shape[-2]} x {x.shape[-1]}"
        remedy = "pad them as detectron2.structures.ImageList does, or set MODEL.TIMM.IMAGE_SIZE"
        raise ConfigError(problem, where="MODEL.TIMM.NAME", remedy=remedy)


def _find_levels(infos: Any, name: str, output_stride: int) -> dict[str, int]:
    """Level -> index of its feature map: the last one of each stride; with dilation, strides repeat at the end."""
    levels: dict[str, int] = {}
    last = 0
    for index, info in enumerate(infos):
        stride = info["reduction"]
        if stride & (stride - 1):
            problem = f"{name} has a feature map of stride {stride}, which is no power of 2"
            remedy = "set MODEL.TIMM.PATCH_SIZE 16 for a ViT, or choose another network"
            raise ConfigError(problem, where="MODEL.TIMM.NAME", remedy=remedy)
        level = stride.bit_length() - 1
        last = max(level, last + 1) if output_stride < COARSEST_STRIDE and stride == output_stride else level
        if last:
            levels[f"res{last}"] = index
    return levels
