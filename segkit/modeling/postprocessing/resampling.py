"""Semantic logits at the size of the output image, and their best channels, a few channels at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

CHANNELS_PER_STEP = 16  # resized at once, 4 bytes a pixel each, so that no C x H x W is needed


class Sizes(NamedTuple):
    """The sizes of an image.

    Attributes:
        image_size: (height, width) of the network's image without padding.
        size_hw: (height, width) of the output.
        scale: Pixels of the network's image per logit: above 1 for logits before the head's own interpolation
            (SemSegFPNHead.layers of Detectron2).
    """

    image_size: tuple[int, int]
    size_hw: tuple[int, int]
    scale: int = 1


def argmax_resized(logits: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """Compute the best channel of each pixel of the output.

    Equal to `sem_seg_postprocess(...).argmax(0)` of detectron2/modeling/postprocessing.py. It is undefined where a
    logit is NaN or infinite, see `find_nan_logits`.

    Args:
        logits: (B, C, h, w) float, of padded images.
        sizes: Sizes of all images.

    Returns:
        (B, H, W) int64: the channel of the highest logit, the first of equal ones.

    Raises:
        ValueError: There are no channels.
    """
    if not logits.shape[1]:
        raise ValueError(f"logits must have at least one channel, got {tuple(logits.shape)}")
    return argmax_selected(logits, torch.arange(logits.shape[1], device=logits.device), sizes)[1]


def argmax_selected(
    logits: torch.Tensor, selected: torch.Tensor, sizes: Sizes | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the highest logit of each pixel among some channels.

    Args:
        logits: (B, C, h, w).
        selected: int64, the channels.
        sizes: Logits are resized to sizes.size_hw; None: not resized.

    Returns:
        (B, H, W) values and (B, H, W) int64 channels, the first of equal ones; -infinity and 0 without channels.
    """
    height, width = logits.shape[2:] if sizes is None else sizes.size_hw
    values = logits.new_full((logits.shape[0], height, width), -torch.inf)
    channels = torch.zeros_like(values, dtype=torch.int64)
    for start in range(0, selected.shape[0], CHANNELS_PER_STEP):
        part = selected[start : start + CHANNELS_PER_STEP]
        part_logits = logits.index_select(1, part)
        highest, index = (part_logits if sizes is None else resize_logits(part_logits, sizes)).max(1)
        higher = (highest > values) if start else torch.ones_like(highest, dtype=torch.bool)
        values, channels = torch.where(higher, highest, values), torch.where(higher, part[index], channels)
    return values, channels


def find_nan_logits(logits: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """(B,) bool: whether a logit that pixels of the image depend on is NaN or infinite. Arguments: `argmax_resized`.

    The small logits are checked, because they are fewest, and because maxima hide NaN in ONNX runtimes.
    """
    is_nan, scale = (~logits.isfinite()).any(1), sizes.scale
    for axis, length in enumerate(sizes.image_size, start=1):
        # The logits on both sides of the middle of the last pixel, in whole numbers, which torch.export follows.
        count = length if scale == 1 else torch.sym_max((2 * length - 1 + scale) // (2 * scale) + 1, 2)
        inside = torch.arange(is_nan.shape[axis], device=logits.device) < count
        is_nan = is_nan & (inside[:, None] if axis == 1 else inside)
    return is_nan.flatten(1).any(1)


def resize_logits(logits: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """Resize logits to the output, as Detectron2's `sem_seg_postprocess` does; see `argmax_resized`.

    Args:
        logits: (B, C, h, w) float.
        sizes: of the image, of the output, and the stride of the logits.

    Returns:
        (B, C, H, W).
    """
    if sizes.scale > 1:
        logits = F.interpolate(logits, scale_factor=sizes.scale, mode="bilinear", align_corners=False)
    logits = crop(logits, *sizes.image_size)
    return F.interpolate(logits, size=sizes.size_hw, mode="bilinear", align_corners=False)


def crop(maps: torch.Tensor, height: int, width: int, top: int = 0, left: int = 0) -> torch.Tensor:
    """Cut a rectangle out.

    Args:
        maps: (B, C, H, W).
        height: of the rectangle.
        width: of the rectangle.
        top: its first line.
        left: its first column.

    Returns:
        (B, C, height, width): a view; a copy if it is exported, because torch.export asks of each view whether it is
        contiguous, and takes the answer for a condition on the sizes.
    """
    if not is_exporting():
        return maps[:, :, top : top + height, left : left + width]
    return torch.slice_copy(torch.slice_copy(maps, 2, top, top + height), 3, left, left + width)


def is_exporting() -> bool:
    """Whether torch.export is tracing.

    Returns:
        False too with a torch before 2.7, which cannot say it.
    """
    return bool(getattr(torch.compiler, "is_exporting", bool)())
