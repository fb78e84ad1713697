"""Resizing of images with any number of channels, each channel by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray
from PIL import Image

PLAIN_CHANNELS = (1, 3)  # which Pillow resizes one by one; it takes 2 and 4 as colours with transparency


class SafeResize(T.ResizeShortestEdge):
    """Detectron2's resize with at least one pixel and any number of channels.

    The short side of a very long image may round to 0.
    """

    def get_transform(self, image: NDArray[Any]) -> T.Transform:
        """See base class."""
        transform = super().get_transform(image)
        if not isinstance(transform, T.ResizeTransform):
            return transform
        height, width = max(transform.new_h, 1), max(transform.new_w, 1)
        return ChannelResize(transform.h, transform.w, height, width, transform.interp)


class ChannelResize(T.ResizeTransform):
    """Detectron2's `ResizeTransform`; images of 2, 4 and more channels are resized channel by channel."""

    def apply_image(self, img: NDArray[Any], interp: int | None = None) -> NDArray[Any]:
        """See base class."""
        if img.ndim < 3 or img.shape[2] in PLAIN_CHANNELS:
            resized: NDArray[Any] = super().apply_image(img, interp)
            return resized
        return np.stack([super(ChannelResize, self).apply_image(band, interp) for band in split_channels(img)], axis=-1)


def resize_box(
    pixels: NDArray[np.uint8], size_hw: tuple[int, int], interp: int, box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """Resize a part of an image by Pillow, each channel by itself.

    Args:
        pixels: (H, W) or (H, W, C).
        size_hw: (height, width) of the result in pixels.
        interp: Pillow's resampling.
        box: left, top, right, bottom of the part, in pixels of the image.

    Returns:
        (height, width) or (height, width, C).
    """
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size_hw[::-1], interp, box=box))
    return np.stack([resize_box(band, size_hw, interp, box) for band in split_channels(pixels)], axis=-1)


def split_channels(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Split an image.

    Args:
        pixels: (H, W, C).

    Returns:
        C contiguous arrays of (H, W).
    """
    return [np.ascontiguousarray(pixels[..., channel]) for channel in range(pixels.shape[2])]
