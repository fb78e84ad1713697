"""Images of any number of channels, such as multispectral ones: .npy arrays, and TIFFs of several bands or pages."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.image_io import DAMAGED, TIFF_SUFFIXES, stretch_to_uint8
from segkit.formats.pixel_limit import check_pixels
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import explain_missing
from segkit.utils.limits import check_unpacked_size
from segkit.utils.links import check_guarded_link

NPY = ".npy"
BAND_SUFFIXES = (NPY, *TIFF_SUFFIXES)
RGB = 3  # channels
ROW_AXIS, COLUMN_AXIS = "Y", "X"  # tifffile's letters
NUMBERS = "uif"  # kinds of numpy
REMEDY = "save it as an array of height, width and channels by numpy.save"


def read_bands(path: str | Path, channels: int, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image of a known number of channels.

    uint8 stays as it is. Other types are scaled to 0..255 by `stretch_to_uint8`, each channel by itself.

    Args:
        path: .npy of (H, W, channels), or (H, W) for one; or a TIFF whose channels are bands or pages.
        channels: expected number.
        size_hw: expected (height, width) in pixels; None accepts any.

    Returns:
        (H, W, channels) uint8.

    Raises:
        DatasetError: as `read_bands_size`, or the pixels cannot be decoded.
    """
    path = Path(path)
    with _ConvertErrors(path):
        pixels = _read(path, channels)
        if size_hw is not None and pixels.shape[:2] != tuple(size_hw):
            got = " x ".join(map(str, pixels.shape[:2]))
            raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {got}", where=path)
        if pixels.dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        bands = [np.ascontiguousarray(pixels[..., band]) for band in range(channels)]
        return np.stack([stretch_to_uint8(band, where=path) for band in bands], axis=-1)


def read_bands_size(path: str | Path, channels: int) -> tuple[int, int]:
    """Read the size of an image of a known number of channels from its header.

    Args:
        path: see `read_bands`.
        channels: expected number.

    Returns:
        (height, width) in pixels.

    Raises:
        DatasetError: the file is missing, damaged, too large, or of another kind or number of channels; tifffile, which
            reads TIFFs, is not installed.
    """
    path = Path(path)
    with _ConvertErrors(path):
        height, width = _read(path, channels, only_shape=True).shape[:2]
        return height, width


def to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show an image of any number of channels: the first three as red, green and blue; the last of fewer is repeated.

    Args:
        pixels: (H, W, C).

    Returns:
        (H, W, 3); of three channels the image itself.
    """
    if pixels.shape[-1] == RGB:
        return pixels
    rgb: NDArray[np.uint8] = pixels.take(np.minimum(range(RGB), pixels.shape[-1] - 1), axis=-1)
    return rgb


def _read(path: Path, channels: int, only_shape: bool = False) -> NDArray[Any]:
    """(H, W, channels) as stored; with `only_shape` an array without content."""
    check_guarded_link(path)
    if path.suffix.lower() == NPY:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)  # a map: no pixel is read yet
        axes = f"{ROW_AXIS}{COLUMN_AXIS}S"[: pixels.ndim] if pixels.ndim in (2, 3) else ""
        return _arrange(pixels, axes, channels, path)
    if path.suffix.lower() not in BAND_SUFFIXES:
        expected = f"an image of {channels} channels, as {', '.join(BAND_SUFFIXES)} hold"
        raise DatasetError(f"expected {expected}", where=path, remedy=REMEDY)
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        problem = "TIFFs of several bands or pages need tifffile, which is not installed"
        raise DatasetError(problem, where=path, remedy=f"pip install tifffile, or {REMEDY}") from None
    with tifffile.TiffFile(path) as file:
        series = [each for each in file.series if not each.keyframe.is_reduced and not each.keyframe.is_mask]
        if len(series) != 1:
            raise DatasetError(f"expected pages of one size, got {len(series)} kinds", where=path, remedy=REMEDY)
        empty = np.broadcast_to(np.zeros((), series[0].dtype), series[0].shape)
        arranged = _arrange(empty, series[0].axes, channels, path)
        check_unpacked_size(empty.nbytes, path.stat().st_size, path)
        return arranged if only_shape else _arrange(series[0].asarray(), series[0].axes, channels, path)


def _arrange(pixels: NDArray[Any], axes: str, channels: int, path: Path) -> NDArray[Any]:
    """Pixels as (H, W, channels), a view; DatasetError if they are something else. axes: a letter for each axis."""
    others = [axis for axis in axes if axis not in (ROW_AXIS, COLUMN_AXIS)]
    got = " x ".join(map(str, pixels.shape)) + f" {pixels.dtype}"
    is_image = ROW_AXIS in axes and COLUMN_AXIS in axes and len(others) <= 1 and min(pixels.shape) > 0
    if not is_image or pixels.dtype.kind not in NUMBERS:
        raise DatasetError(f"expected height, width and channels of numbers, got {got}", where=path, remedy=REMEDY)
    order = [axes.index(axis) for axis in (ROW_AXIS, COLUMN_AXIS, *others)]
    arranged: NDArray[Any] = pixels.transpose(order).reshape(pixels.shape[order[0]], pixels.shape[order[1]], -1)
    if arranged.shape[2] != channels:
        problem = f"expected {channels} channels, got {arranged.shape[2]} ({got})"
        raise DatasetError(problem, where=path, remedy="set `channels` of the dataset to the number of its images")
    check_pixels((arranged.shape[0], arranged.shape[1]), path)
    return arranged


class _ConvertErrors:
    """Turns exceptions of opening and decoding into a DatasetError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        if not self.path.is_file():
            raise DatasetError(f"the image is missing{explain_missing(self.path)}", where=self.path)

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, (*DAMAGED, RuntimeError, zlib.error)) and not isinstance(error, DatasetError):
            text = " ".join(str(error).split()) or type(error).__name__
            raise DatasetError(f"the image does not decode: {text}", where=self.path, remedy=REMEDY) from None
