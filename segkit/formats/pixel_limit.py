"""The largest image that is decoded: a small file can claim to be a huge image, which fills the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO

from PIL import Image

from segkit.utils.errors import DatasetError
from segkit.utils.limits import read_limit

MAX_PIXELS = "SEGKIT_MAX_PIXELS"
UNLIMITED = 2**32 - 1  # what pycocotools counts in
BYTES_PER_PIXEL = 14  # that reading takes at its peak: 14 for RGBA PNGs, 10 to 13 for the others, as measured

_without_limit = ContextVar("_without_limit", default=False)


def get_max_pixels() -> int:
    """Get the largest number of pixels of an image: `SEGKIT_MAX_PIXELS`, or Pillow's limit of 178,956,970.

    A program that changes `PIL.Image.MAX_IMAGE_PIXELS` changes the default: Pillow refuses twice as many.

    Returns:
        The number.

    Raises:
        ConfigError: the variable is no whole number from 1.
    """
    if _without_limit.get():
        return UNLIMITED
    return read_limit(MAX_PIXELS, 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else UNLIMITED)


@contextmanager
def without_pixel_limit(is_active: bool = True) -> Iterator[None]:
    """Read an image of any size that the user has chosen, within a block and this thread.

    Args:
        is_active: False: the limit holds.

    Yields:
        Nothing. At the end Pillow's limit is as before.
    """
    token, pillows = _without_limit.set(is_active), Image.MAX_IMAGE_PIXELS
    try:
        yield
    finally:
        if is_active:
            Image.MAX_IMAGE_PIXELS = pillows
        _without_limit.reset(token)


def check_pixels(size_hw: tuple[int, int], where: object) -> None:
    """Check the size of an image before its pixels are decoded.

    Args:
        size_hw: (height, width) in pixels.
        where: the file, for the message.

    Raises:
        DatasetError: the image has more pixels than `get_max_pixels`.
    """
    pixels, limit = size_hw[0] * size_hw[1], get_max_pixels()
    if pixels > limit:
        size = f"{size_hw[0]} x {size_hw[1]} = {pixels}" if pixels <= UNLIMITED else "many more"
        raise _build_error(size, pixels, where)


def open_pillow(file: IO[bytes], where: object, formats: list[str] | None = None) -> Image.Image:
    """`Image.open` with segkit's limit beside Pillow's, which is raised if `SEGKIT_MAX_PIXELS` is above it.

    Args:
        file: the content.
        where: the file, for the message.
        formats: Pillow's names of the accepted formats; None for all.

    Returns:
        The image, not decoded yet.

    Raises:
        DatasetError: the image has more pixels than `get_max_pixels`.
    """
    limit = get_max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # of the whole process, and for good: threads read images side by side
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        pixels = int(str(error).partition("(")[2].partition(" ")[0])  # "Image size (N pixels) exceeds limit of ..."
        raise _build_error(str(pixels), pixels, where) from None
    check_pixels((image.height, image.width), where)
    return image


def _build_error(size: str, pixels: int, where: object) -> DatasetError:
    remedy = "cut it into tiles (`segkit predict --tile` does so)"
    if pixels <= UNLIMITED:
        gigabytes = max(pixels * BYTES_PER_PIXEL / 1e9, 0.1)
        remedy += f", or set {MAX_PIXELS}={pixels}, which takes about {gigabytes:.1f} GB of memory"
    problem = f"expected at most {get_max_pixels()} pixels, got {size}"
    return DatasetError(problem, where=where, remedy=remedy, code="image-too-large")
