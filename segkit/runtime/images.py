"""Images in any form (files, Pillow's, arrays, tensors) as the pixels that a model reads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats.bands import RGB, read_bands, to_rgb
from segkit.formats.image_io import convert_image, open_image
from segkit.utils.errors import ConfigError, DatasetError

# Values of INPUT.FORMAT: of one channel, of as many as the images have, and those of three.
GREY, ALL_CHANNELS, COLOR_FORMATS = "L", "CHANNELS", ("RGB", "BGR")
RGBA = 4  # channels
BAND_PX = 2**22  # pixels of an image that are copied at once
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

ColorOrder: TypeAlias = Literal["RGB", "BGR"]
ImageLike: TypeAlias = Any  # str, Path, PIL.Image.Image, numpy array or torch tensor


@dataclass(frozen=True)
class InputFormat:
    """The pixels that a model reads.

    Attributes:
        name: INPUT.FORMAT of the model: "RGB", "BGR", "L", "CHANNELS" (all channels of the file) or a mode of Pillow.
        channels: their number.
    """

    name: str
    channels: int

    def read(self, image: ImageLike, color_order: ColorOrder = "RGB") -> NDArray[np.uint8]:
        """Convert an image to the pixels that the model reads.

        Files are read as in training, see `segkit.formats.image_io.open_image`, and images of Pillow likewise: rotated
        as EXIF says, without transparency, values of more than 8 bits stretched to 8. A model of colours takes grey
        arrays, and drops the fourth channel.

        Args:
            image: path of a file; image of Pillow; (H, W, C) or (H, W) uint8 array; (C, H, W) or (H, W) uint8 tensor.
                A model with `CHANNELS` takes arrays of exactly its channels, and files that `read_bands` reads.
            color_order: of arrays and tensors with 3 or 4 channels.

        Returns:
            (H, W, C) uint8, `channels` channels; perhaps read-only, or the image itself.

        Raises:
            DatasetError: the file cannot be read, or is an address.
            ValueError: an array or tensor has another shape or dtype, or the image is none of these.
        """
        check_color_order(color_order)
        if isinstance(image, (str, os.PathLike)):
            return self._read_file(os.fspath(image))
        if isinstance(image, Image.Image):
            if self._takes_bands:
                raise ValueError(
                    f"image must have {self.channels} channels, as the model reads: give an array or a file"
                )
            return convert_pixels(convert_image(image), self.name)
        if isinstance(image, np.ndarray):
            return self._convert_array(image, color_order)
        if is_tensor(image):
            return self._convert_array(_read_tensor(image), color_order)
        expected = "a path, an image of Pillow, an array or a tensor"
        raise ValueError(f"image must be {expected}, got {type(image).__name__}")

    def to_rgb(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert the pixels that the model reads to an image to draw on.

        Args:
            pixels: of `read`.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        if self.name in (*COLOR_FORMATS, GREY, ALL_CHANNELS):
            return to_rgb(pixels[:, :, ::-1] if self.name == "BGR" else pixels)
        image = Image.frombytes(self.name, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
        return np.asarray(image.convert("RGB"))

    def read_rgb(self, path: str | Path) -> NDArray[np.uint8]:
        """Read a file for drawing: `to_rgb` of `read`.

        Args:
            path: image file.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        return self.to_rgb(self.read(path))

    @property
    def _takes_bands(self) -> bool:
        """Whether the channels are no colours."""
        return self.name == ALL_CHANNELS and self.channels != RGB

    def _read_file(self, path: str) -> NDArray[np.uint8]:
        if ADDRESS.match(path):
            problem = f"expected the path of an image, got the address {path}"
            raise DatasetError(problem, remedy="download it, and give the path of the file")
        return read_bands(path, self.channels) if self._takes_bands else convert_pixels(open_image(path), self.name)

    def _convert_array(self, pixels: NDArray[Any], color_order: ColorOrder) -> NDArray[np.uint8]:
        check_pixels(pixels, f"(H, W, {self.channels}) uint8")
        channels = pixels.shape[2:] or (1,)
        accepted = {self.channels} if self._takes_bands else {1, RGB, RGBA}
        if channels[0] not in accepted:
            is_first = pixels.shape[0] in accepted
            remedy = "; are the channels first? Then give image.transpose(1, 2, 0)" if is_first else ""
            expected = "1, 3 or 4" if len(accepted) > 1 else str(self.channels)
            raise ValueError(f"image must be (H, W, C) with {expected} channels, got {pixels.shape}{remedy}")
        pixels = pixels.reshape(*pixels.shape[:2], *channels)
        if self._takes_bands:
            return pixels
        if channels[0] == 1:
            return pixels if self.name == GREY else convert_pixels(Image.fromarray(pixels[..., 0]), self.name)
        pixels = pixels[..., :RGB]
        if self.name in COLOR_FORMATS:
            return np.ascontiguousarray(pixels if self.name == color_order else pixels[..., ::-1])
        rgb = pixels if color_order == "RGB" else pixels[..., ::-1]
        return convert_pixels(Image.fromarray(np.ascontiguousarray(rgb)), self.name)


def convert_pixels(image: Image.Image, image_format: str) -> NDArray[np.uint8]:
    """Convert an image to INPUT.FORMAT, as Detectron2's `convert_PIL_to_numpy` does.

    Args:
        image: 8-bit image.
        image_format: "RGB", "BGR" or another mode of Pillow; "CHANNELS" is RGB.

    Returns:
        (H, W, C) uint8; perhaps read-only.

    Raises:
        ConfigError: Pillow does not know the mode.
    """
    mode = "RGB" if image_format in (*COLOR_FORMATS, ALL_CHANNELS) else image_format
    try:
        converted = image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        problem = f"expected RGB, BGR, YUV-BT.601 or a mode of Pillow, got {image_format!r}: {error}"
        raise ConfigError(problem, where="INPUT.FORMAT") from error
    if mode != "RGB":
        pixels = np.asarray(converted)
        return pixels[..., None] if pixels.ndim == len(image.size) else pixels
    return _copy_colors(converted, "BGR" if image_format == "BGR" else "RGB")


def _copy_colors(image: Image.Image, order: str) -> NDArray[np.uint8]:
    """(H, W, 3) of an RGB image. In bands, since Pillow makes small pieces of memory that are not given back."""
    width, height = image.size
    rows = max(BAND_PX // max(width, 1), 1)
    if rows >= height:
        return np.frombuffer(image.tobytes("raw", order), dtype=np.uint8).reshape(height, width, RGB)
    pixels = np.empty((height, width, RGB), dtype=np.uint8)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.frombuffer(band.tobytes("raw", order), dtype=np.uint8).reshape(-1, width, RGB)
    return pixels


def is_image(value: object) -> bool:
    """Whether a value is one image, rather than several.

    Args:
        value: what a model is called with.

    Returns:
        True for paths, images of Pillow, arrays and tensors, of any shape.
    """
    return isinstance(value, (str, os.PathLike, Image.Image, np.ndarray)) or is_tensor(value)


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of torch, which is not imported for that.

    Args:
        value: anything.

    Returns:
        True for a tensor.
    """
    return all(hasattr(value, name) for name in ("detach", "cpu", "numpy"))


def check_color_order(color_order: str) -> None:
    """Check the order of the colours in arrays.

    Args:
        color_order: "RGB" or "BGR".

    Raises:
        ValueError: any other value.
    """
    if color_order not in COLOR_FORMATS:
        raise ValueError(f"color_order must be 'RGB' or 'BGR', got {color_order!r}")


def check_pixels(pixels: NDArray[Any], expected: str) -> None:
    """Check that an array can be one image.

    Args:
        pixels: the array.
        expected: shape and dtype, for the message.

    Raises:
        ValueError: it is not uint8, not (H, W) or (H, W, C), or empty.
    """
    if pixels.dtype != np.uint8:
        is_number = pixels.size and pixels.dtype.kind in "uif"
        values = f" with values from {pixels.min():g} to {pixels.max():g}" if is_number else ""
        remedy = "scale it to 0..255 and convert it by .astype(np.uint8)"
        raise ValueError(f"image must be {expected}, got {pixels.shape} {pixels.dtype}{values}; {remedy}")
    if pixels.ndim not in (2, 3) or not pixels.size:
        remedy = "; give several images as a list" if pixels.ndim > len("HWC") else ""
        raise ValueError(f"image must be {expected}, got {pixels.shape} {pixels.dtype}{remedy}")


def _read_tensor(tensor: Any) -> NDArray[Any]:
    """A (C, H, W) or (H, W) tensor as (H, W, C) or (H, W)."""
    if "uint8" not in str(tensor.dtype) or tensor.ndim not in (2, 3):
        shape = f"{tuple(tensor.shape)} {tensor.dtype}"
        hint = "scale it to 0..255 and convert it by .to(torch.uint8)"
        hint = "give several images as a list" if tensor.ndim > len("CHW") else hint
        raise ValueError(f"a tensor must be (C, H, W) uint8, got {shape}; {hint}")
    pixels: NDArray[Any] = tensor.detach().cpu().numpy()
    if pixels.ndim == len("CHW") and pixels.shape[0] > RGBA >= pixels.shape[2]:
        raise ValueError(f"a tensor must be (C, H, W) uint8, got {pixels.shape}; give tensor.permute(2, 0, 1)")
    return np.moveaxis(pixels, 0, -1) if pixels.ndim == len("CHW") else pixels
