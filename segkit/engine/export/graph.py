"""Models as one function of tensors: images in, the final result out, with fusion inside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional as F

from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.structures.graph_outputs import OUTPUTS
from segkit.utils.errors import ConfigError

NO_CLASS = -1  # of a row without an instance
EXAMPLE_SIDE, EXAMPLE_CELLS = 96, 3  # least pixels, and cells of the coarsest level, of a height


class Graph(nn.Module):
    """A model as a function of tensors, whose shapes depend on no value. A subclass knows a family of architectures.

    Args:
        model: in evaluation mode.
        tasks: keys of `OUTPUTS`.
        swap_channels: whether the model takes BGR; the graph takes RGB.
        channels: of the semantic head.

    Attributes:
        outputs: task -> names of its results.
        masks_attention: whether masks that the network predicts decide what it attends to.
        multiple_hw: pixels of which padded sides are multiples.
        square_size: side of the square to which all images are padded, in pixels; 0: they are not.
    """

    outputs = OUTPUTS
    masks_attention = False

    def __init__(self, model: Any, tasks: Sequence[str], swap_channels: bool, channels: int) -> None:
        super().__init__()
        self.model, self.tasks, self.swap_channels, self.channel_count = model, [*tasks], swap_channels, channels
        side = max(model.backbone.size_divisibility, 1)
        self.multiple_hw: tuple[int, int] = getattr(model, "multiple_hw", (side, side))
        self.square_size = 0

    @staticmethod
    @abstractmethod
    def list_tasks(model: Any) -> tuple[str, ...]:
        """List what a model of the family gives, keys of `OUTPUTS`."""

    @staticmethod
    @abstractmethod
    def find_obstacle(model: Any, tasks: Sequence[str]) -> str:
        """Name a part of a model that cannot be exported; "" for none."""

    def check_size(self, fixed_size: tuple[int, int] | None) -> None:
        """Check that a graph of images of this size, None for any, can be exported.

        Args:
            fixed_size: (h, w).

        Raises:
            ConfigError: it cannot.
        """
        if fixed_size is None and any(isinstance(part, Conv2dSame) for part in self.model.backbone.modules()):
            problem = 'padding "same" of any size (MODEL.TIMM.NAME tf_...) takes torch hours to export'
            raise ConfigError(problem, remedy="give a --fixed-size, or choose a network without it")

    @abstractmethod
    def compute(self, pixels: torch.Tensor, sizes: Sizes) -> dict[str, torch.Tensor]:
        """Run the network and the fusion.

        Args:
            pixels: of `preprocess`.
            sizes: of the images and of the results.

        Returns:
            The tensors of `output_names`.
        """

    @property
    def output_names(self) -> list[str]:
        """Names of the results of `forward`, in their order."""
        return [name for task in self.tasks for name in self.outputs[task]]

    @property
    def example_hw(self) -> tuple[int, int]:
        """A size of images to trace with. Its sides differ, since torch may take equal ones for one."""
        if self.square_size:
            return self.square_size // 2, self.square_size // 2 + 1
        down, right = self.multiple_hw
        least = max(EXAMPLE_CELLS, getattr(self.model.backbone, "window_size", 0) + 1)  # one window is a constant
        cells = (max(-(-EXAMPLE_SIDE // step), least) for step in self.multiple_hw)
        return next(cells) * down, (next(cells) + 1) * right

    def forward(self, images: torch.Tensor, canvas: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the network and the fusion.

        Args:
            images: (B, C, h, w) uint8 or float in 0..255, resized images of one size; three channels are RGB.
            canvas: (H, W), any values: its size is that of the results.

        Returns:
            The tensors of `output_names`, see `OUTPUTS`.
        """
        sizes = Sizes((images.shape[2], images.shape[3]), (canvas.shape[0], canvas.shape[1]))
        results = self.compute(self.preprocess(images), sizes)
        return tuple(results[name] for name in self.output_names)

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize images, and pad them below and on the right.

        Args:
            images: of `forward`.

        Returns:
            (B, C, h', w') float32 in the order of the model's channels.
        """
        return self.pad(self.normalize(self.order_channels(images)))

    def order_channels(self, images: torch.Tensor) -> torch.Tensor:
        """Images as float32, in the order of the model's channels."""
        return images.float().flip(1) if self.swap_channels else images.float()

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Subtract the mean of each channel, and divide by its standard deviation."""
        normalized: torch.Tensor = (pixels - self.model.pixel_mean) / self.model.pixel_std
        return normalized

    def pad(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pad images with 0, to the square or to multiples of `multiple_hw`."""
        if self.square_size:
            for side in pixels.shape[2:]:
                torch._check(side <= self.square_size)  # padding by less than 0 would crop
        # In these forms the exporter sees that all levels have sizes that fit each other.
        down, right = (
            self.square_size - side if self.square_size else (side + step - 1) // step * step - side
            for side, step in zip(pixels.shape[2:], self.multiple_hw, strict=True)
        )
        return F.pad(pixels, (0, right, 0, down))


def find_square_padding(model: Any) -> str:
    """Name the padding to squares, of which most graphs know nothing.

    Args:
        model: any.

    Returns:
        The obstacle, as of `Graph.find_obstacle`.
    """
    has_squares = getattr(model.backbone, "padding_constraints", {}).get("square_size", 0) > 0
    return "the padding to squares of a fixed size (MODEL.BACKBONE)" if has_squares else ""


def name_panoptic(fused: FusedTensors) -> dict[str, torch.Tensor]:
    """The outputs of the task panoptic.

    Args:
        fused: a batch.

    Returns:
        The tensors by name.
    """
    return {"segment_ids": fused.ids, "segments": fused.table[:, :-1], "errors": fused.table[:, -1, 0].int()}
