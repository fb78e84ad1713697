"""The resizing before a network, without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_short_side(pixels: NDArray[np.uint8], min_size: int, max_size: int) -> NDArray[np.uint8]:
    """Resize an image as `segkit.data.augmentations.resize.SafeResize` does: Pillow, bilinear, each channel by itself.

    Args:
        pixels: (H, W, C).
        min_size: length of the short side in pixels; 0 leaves the image as it is.
        max_size: greatest length of the long side in pixels, which makes the short one shorter.

    Returns:
        (h, w, C), at least one pixel.
    """
    if not min_size:
        return pixels
    height, width = compute_size((pixels.shape[0], pixels.shape[1]), min_size, max_size)
    if pixels.shape[2] == len("RGB"):
        return np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BILINEAR)
        )
    bands = (Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(pixels.shape[2]))
    return np.stack([np.asarray(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands], axis=-1)


def compute_size(size_hw: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Compute the size of a resized image, with the rounding of Detectron2's `ResizeShortestEdge`.

    Args:
        size_hw: (height, width) in pixels.
        min_size: see `resize_short_side`.
        max_size: see `resize_short_side`.

    Returns:
        (height, width) in pixels, at least 1.
    """
    height, width = size_hw
    scale = min_size / min(height, width)
    new_height, new_width = (float(min_size), scale * width) if height < width else (scale * height, float(min_size))
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)
