"""Large-scale jitter and colour jitter as Detectron2 augmentations."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray
from PIL import Image

from segkit.data.augmentations.resize import resize_box
from segkit.runtime.images import ALL_CHANNELS

IMAGE_PAD = 128  # Detectron2's FixedSizeCrop
MAP_PAD = 255  # the same; void
WHITE = 255
GREY_OF_RGB = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and Detectron2 weigh


class LargeScaleJitter(T.Augmentation):
    """Resize to a random scale of a fixed square, then crop at random or pad below and to the right.

    The image is fitted into a square of scale * size_px pixels and keeps its aspect ratio (Ghiasi et al. 2021, Simple
    Copy-Paste, section 3.1; fitted as in Detectron2's ResizeScale). The result always has size_px x size_px pixels.

    Args:
        size_px: side of the result in pixels.
        min_scale: the lowest scale; scales are uniform in [min_scale, max_scale].
        max_scale: the highest scale.
        interp: Pillow's resampling of images; maps take the nearest pixel.
        pad: value of the pixels of images beyond their end, in [0, 255].
    """

    def __init__(
        self,
        size_px: int,
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        interp: int = Image.Resampling.BILINEAR,
        pad: int = IMAGE_PAD,
    ) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: NDArray[np.uint8]) -> T.Transform:
        """See base class."""
        height, width = image.shape[:2]
        side = self.size_px * self._rand_range(self.min_scale, self.max_scale)
        scale = min(side / height, side / width)
        resized = max(1, round(height * scale)), max(1, round(width * scale))
        spare = np.maximum(np.subtract(resized, self.size_px), 0)
        top, left = np.round(spare * self._rand_range(size=2)).astype(int).tolist()
        return WindowTransform((height, width), resized, (top, left), self.size_px, self.interp, self.pad)


class WindowTransform(T.Transform):
    """Resize to `resized_hw`, then take a square window, padded where the image ends before it.

    Only the pixels inside the window are resized. Images and maps are uint8.

    Args:
        size_hw: size of the image in pixels.
        resized_hw: size after the resize.
        corner_yx: the window's top left corner in the resized image.
        size_px: side of the window.
        interp: Pillow's resampling of images; maps take the nearest pixel.
        pad: value of the pixels of images beyond their end.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        corner_yx: tuple[int, int],
        size_px: int,
        interp: int = Image.Resampling.BILINEAR,
        pad: int = IMAGE_PAD,
    ) -> None:
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See base class."""
        return self._window(img, self.interp, self.pad)

    def apply_segmentation(self, segmentation: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See base class."""
        return self._window(segmentation, Image.Resampling.NEAREST, MAP_PAD)

    def apply_coords(self, coords: NDArray[np.floating]) -> NDArray[np.floating]:
        """See base class."""
        scale_yx = np.divide(self.resized_hw, self.size_hw)
        coords[:, 0] = coords[:, 0] * scale_yx[1] - self.corner_yx[1]
        coords[:, 1] = coords[:, 1] * scale_yx[0] - self.corner_yx[0]
        return coords

    def _window(self, pixels: NDArray[np.uint8], interp: int, pad: int) -> NDArray[np.uint8]:
        (top, left), (resized_h, resized_w), (height, width) = self.corner_yx, self.resized_hw, self.size_hw
        shown_h, shown_w = min(self.size_px, resized_h - top), min(self.size_px, resized_w - left)
        box = (
            left * width / resized_w,
            top * height / resized_h,
            min((left + shown_w) * width / resized_w, width),
            min((top + shown_h) * height / resized_h, height),
        )
        window = np.full((self.size_px, self.size_px, *pixels.shape[2:]), pad, dtype=np.uint8)
        window[:shown_h, :shown_w] = resize_box(pixels, (shown_h, shown_w), interp, box)
        return window


class ColorJitter(T.Augmentation):
    """Change brightness, contrast and saturation by random factors, each uniform in [1 - x, 1 + x].

    Brightness scales the pixels, contrast their distance from the image's mean grey, saturation their distance from
    their own grey (Pillow's ImageEnhance). All are affine: they are applied as one matrix, rounded and clipped once.
    Of images in "CHANNELS", each channel has its own mean and no saturation, and all have the same factors.

    Args:
        image_format: "RGB", "BGR", "L" or "CHANNELS".
        brightness: x of the brightness, in [0, 1].
        contrast: x of the contrast, in [0, 1].
        saturation: x of the saturation, in [0, 1].

    Raises:
        ValueError: another image format.
    """

    def __init__(self, image_format: str, brightness: float, contrast: float, saturation: float) -> None:
        super().__init__()
        if image_format not in ("RGB", "BGR", "L", ALL_CHANNELS):
            raise ValueError(f"image_format must be RGB, BGR, L or {ALL_CHANNELS}, got {image_format!r}")
        self._init(locals())

    def get_transform(self, image: NDArray[np.uint8]) -> T.Transform:
        """See base class."""
        spread = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = 1 + spread * self._rand_range(-1.0, 1.0, size=3)
        if self.image_format == ALL_CHANNELS:
            shift = (1 - contrast) * brightness * image.mean(axis=(0, 1))
            return T.ColorTransform(lambda pixels: _scale_channels(pixels, brightness * contrast, shift))
        matrix = compute_color_matrix(image, brightness, contrast, saturation, self.image_format)
        return T.ColorTransform(lambda pixels: cv2.transform(pixels, matrix).reshape(pixels.shape))


def _scale_channels(pixels: NDArray[np.uint8], scale: float, shift: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels times scale, plus the shift of each channel, rounded and clipped."""
    return np.clip(np.rint(scale * pixels + shift), 0, WHITE).astype(np.uint8)


def compute_color_matrix(
    image: NDArray[np.uint8], brightness: float, contrast: float, saturation: float, image_format: str
) -> NDArray[np.float64]:
    """Compute the affine matrix that takes an image's pixels to the jittered ones.

    Args:
        image: (H, W, channels) uint8.
        brightness: factor of the pixels.
        contrast: factor of the distance from the image's mean grey.
        saturation: factor of the distance from each pixel's grey.
        image_format: "RGB", "BGR" or "L".

    Returns:
        (channels, channels + 1) float64 matrix, for cv2.transform.
    """
    grey = {"RGB": GREY_OF_RGB, "BGR": GREY_OF_RGB[::-1], "L": (1.0,)}[image_format]
    channels = len(grey)
    mean = brightness * np.dot(grey, cv2.mean(image)[:channels])
    scale = brightness * contrast
    matrix = scale * (saturation * np.eye(channels) + (1 - saturation) * np.tile(grey, (channels, 1)))
    return np.hstack([matrix, np.full((channels, 1), (1 - contrast) * mean)])
