"""Parts of mask logits at the size of the output: bands of rows of all masks, or a window of one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F

from segkit.modeling.postprocessing.resampling import Sizes

MOST_TAPS = 3  # neighbours of a pixel along an axis, after two interpolations
CPU_BYTES, DEVICE_BYTES = 2**22, 2**26  # of the masks of a band: in the cache of a CPU, a small part of a GPU

Window = tuple[slice, slice]


class Taps(NamedTuple):
    """How the pixels of the output are interpolated along one axis.

    Attributes:
        first: (L,) int64 on the CPU, the first logit that a pixel depends on; it never falls.
        indices: (T, L) int64, the T logits that a pixel depends on.
        weights: (T, L) float32, their weights.
    """

    first: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor


class ResizedMasks:
    """Mask logits at the size of the output, part by part.

    The values are those of `resize_logits`: bilinear to the padded image, without its padding, bilinear to the output.
    Both are linear along each axis, so that each pixel has a few neighbours among the logits, with fixed weights.

    Args:
        logits: (R, h, w) float, of the padded image.
        sizes: of the image.
    """

    def __init__(self, logits: torch.Tensor, sizes: Sizes) -> None:
        self.logits, self.size_hw = logits, sizes.size_hw
        (height, width), device = logits.shape[1:], logits.device
        self._rows = build_taps(height, sizes.scale, sizes.image_size[0], sizes.size_hw[0], device)
        self._columns = build_taps(width, sizes.scale, sizes.image_size[1], sizes.size_hw[1], device)

    def bands(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Resize band by band; the masks of a band take CPU_BYTES or DEVICE_BYTES, or one row if that is more.

        Yields:
            The rows of the output, and their logits, (R, rows, W) float32.
        """
        height, width = self.size_hw
        most = CPU_BYTES if self.logits.device.type == "cpu" else DEVICE_BYTES
        step = max(1, most // max(4 * len(self.logits) * width, 1))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            yield rows, self.resize(self.logits, (rows, slice(0, width)))

    def resize(self, logits: torch.Tensor, window: Window) -> torch.Tensor:
        """Resize masks in a window.

        Args:
            logits: (k, h, w), some of the masks.
            window: rows and columns of the output, at least one each.

        Returns:
            (k, rows, columns) float32.
        """
        rows, columns = window
        part = logits[:, _find_span(self._rows, rows), _find_span(self._columns, columns)].float()
        return _interpolate(_interpolate(part, self._columns, columns, 2), self._rows, rows, 1)

    def find_windows(self, extents: list[list[int]]) -> list[Window]:
        """Find where masks can be positive: a pixel's logit is a mean of its neighbours.

        Args:
            extents: for each mask, the first and last row and the first and last column of h x w with a positive logit.

        Returns:
            Rows and columns of the output, which may be empty.
        """
        return [
            (_find_pixels(self._rows, top, bottom), _find_pixels(self._columns, left, right))
            for top, bottom, left, right in extents
        ]


@lru_cache(maxsize=64)
def build_taps(count: int, scale: int, image_length: int, length: int, device: torch.device) -> Taps:
    """Build the taps of an axis from the interpolation of unit vectors.

    Args:
        count: logits along the axis.
        scale: pixels of the network's image per logit.
        image_length: pixels of the network's image, without padding.
        length: pixels of the output.
        device: of indices and weights.

    Returns:
        The taps.
    """
    units = torch.eye(count)[None]
    if scale > 1:
        units = F.interpolate(units, scale_factor=scale, mode="linear", align_corners=False)
    resized = F.interpolate(units[..., :image_length], size=length, mode="linear", align_corners=False)[0].T
    depends = resized != 0
    taps = min(MOST_TAPS if length != image_length else 2, count)
    first = depends.float().argmax(1).clamp(max=count - taps)
    indices = first + torch.arange(taps)[:, None]
    weights = resized.gather(1, indices.T).T.contiguous()
    return Taps(first, indices.to(device), weights.to(device))


def _find_span(taps: Taps, pixels: slice) -> slice:
    """The logits that pixels depend on."""
    return slice(int(taps.first[pixels.start]), int(taps.first[pixels.stop - 1]) + len(taps.indices))


def _find_pixels(taps: Taps, first: int, last: int) -> slice:
    """The pixels that depend on logits from the first to the last."""
    bounds = torch.tensor([first - len(taps.indices), last])
    start, stop = torch.searchsorted(taps.first, bounds, right=True).tolist()
    return slice(start, stop)


def _interpolate(values: torch.Tensor, taps: Taps, pixels: slice, dim: int) -> torch.Tensor:
    """Interpolate values, whose first one along dim is the first that the pixels depend on."""
    indices = taps.indices[:, pixels] - int(taps.first[pixels.start])
    weights = taps.weights[:, pixels]
    if dim == 1:
        weights = weights[:, :, None]
    result = values.index_select(dim, indices[0]) * weights[0]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        result.addcmul_(values.index_select(dim, index), weight)
    return result
