"""Semantic logits -> the best channel at each pixel of the output image, a few channels at a time."""

from __future__ import annotations

import torch
from torch.nn import functional as F

CHANNELS_PER_STEP = 16  # resized at once: 4 bytes a pixel each, so never C x H x W


def argmax_resized(
    logits: torch.Tensor, image_size: tuple[int, int], size_hw: tuple[int, int], scale: int = 1
) -> torch.Tensor:
    """(B, H, W) int64: the channel of the highest logit at each pixel, of equal ones the first.

    logits: (B, C, h, w) float, of padded images. image_size: (height, width) that the network saw of each image,
    without padding. size_hw: of the output. scale: above 1 for logits of before the head's own interpolation
    (Detectron2's SemSegFPNHead.layers), by so much. Equal to `sem_seg_postprocess(...).argmax(0)` of
    detectron2/modeling/postprocessing.py; where a logit is NaN or infinite it is undefined, see `nan_logits`.
    """
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    for start in range(0, logits.shape[1], CHANNELS_PER_STEP):
        part = resized(logits[:, start : start + CHANNELS_PER_STEP], image_size, size_hw, scale)
        values, channels = part.max(1)
        channels = channels + start
        if best is not None:
            higher = values > best[0]
            values, channels = torch.where(higher, values, best[0]), torch.where(higher, channels, best[1])
        best = values, channels
    if best is None:
        raise ValueError(f"logits must have at least one channel, got {tuple(logits.shape)}")
    return best[1]


def nan_logits(logits: torch.Tensor, image_size: tuple[int, int], scale: int = 1) -> torch.Tensor:
    """(B,) bool: whether a logit that pixels of the image are made of is NaN or infinite; arguments: `best_channels`.

    Looked for before they are resized, where they are fewest, and not in the maxima, which hide NaN in ONNX runtimes.
    """
    rows, columns = (length if scale == 1 else int((length - 0.5) / scale - 0.5) + 2 for length in image_size)
    return (~logits[:, :, :rows, :columns].isfinite()).flatten(1).any(1)


def resized(
    logits: torch.Tensor, image_size: tuple[int, int], size_hw: tuple[int, int], scale: int = 1
) -> torch.Tensor:
    """(B, C, H, W): the logits at the output's size, as `sem_seg_postprocess` gives them; see `best_channels`."""
    if scale > 1:
        logits = F.interpolate(logits, scale_factor=scale, mode="bilinear", align_corners=False)
    logits = logits[:, :, : image_size[0], : image_size[1]]
    return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
