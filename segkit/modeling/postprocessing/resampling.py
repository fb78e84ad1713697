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
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    for start in range(0, logits.shape[1], CHANNELS_PER_STEP):
        part = resize_logits(logits[:, start : start + CHANNELS_PER_STEP], sizes)
        values, channels = part.max(1)
        channels = channels + start
        if best is not None:
            higher = values > best[0]
            values, channels = torch.where(higher, values, best[0]), torch.where(higher, channels, best[1])
        best = values, channels
    if best is None:
        raise ValueError(f"logits must have at least one channel, got {tuple(logits.shape)}")
    return best[1]


def find_nan_logits(logits: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """(B,) bool: whether a logit that pixels of the image depend on is NaN or infinite. Arguments: `argmax_resized`.

    The small logits are checked, because they are fewest, and because maxima hide NaN in ONNX runtimes.
    """
    rows, columns = (
        length if sizes.scale == 1 else int((length - 0.5) / sizes.scale - 0.5) + 2 for length in sizes.image_size
    )
    return (~logits[:, :, :rows, :columns].isfinite()).flatten(1).any(1)


def resize_logits(logits: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """(B, C, H, W): the logits at the output's size, as `sem_seg_postprocess` computes them; see `argmax_resized`."""
    if sizes.scale > 1:
        logits = F.interpolate(logits, scale_factor=sizes.scale, mode="bilinear", align_corners=False)
    logits = logits[:, :, : sizes.image_size[0], : sizes.image_size[1]]
    return F.interpolate(logits, size=sizes.size_hw, mode="bilinear", align_corners=False)
