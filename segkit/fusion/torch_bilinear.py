"""Bilinear resizing in torch's own arithmetic, bit for bit: upsample_bilinear2d for contiguous float32 on a CPU.

After aten/src/ATen/native/UpSample.h and aten/src/ATen/native/cpu/UpSampleKernel.cpp of PyTorch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.utils.compiled import multiply_add

SMALL_OUTPUT = 128  # torch takes another kernel where height + width of the result is no more
LANES = 8  # channels that this kernel takes together (of 16, in AVX-512, also the half); it adds up the rest otherwise
PLAIN, VECTOR, REMAINDER = 0, 1, 2  # torch's orders of adding up the four products

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class Axis(NamedTuple):
    """One axis of a bilinear resize to n pixels: the two pixels that each lies between, and their weights."""

    indices: IntArray  # (n, 2)
    weights: FloatArray  # (n, 2), in [0, 1]


class Resize(NamedTuple):
    """A bilinear resize as torch computes it. order: of the channels before `remainder`; those from there on have
    their own. width: of what is resized."""

    width: int
    rows: Axis
    columns: Axis
    order: int
    remainder: int


def two_resizes(
    shape: tuple[int, ...], scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[Resize, Resize]:
    channels, height, width = shape
    enlarged_hw = (height * scale, width * scale)
    ratios = [np.float32(size) / np.float32(new) for size, new in zip(image_size_hw, size_hw, strict=True)]
    enlarge = _resize(channels, (height, width), enlarged_hw, [np.float32(1 / scale)] * 2, height * width == 1)
    return enlarge, _resize(channels, image_size_hw, size_hw, ratios, height * width * scale == 1)


def _resize(
    channels: int, size_hw: tuple[int, int], new_hw: tuple[int, int], ratios: list[np.float32], is_one: bool
) -> Resize:
    """Which kernel torch takes: upsample_bilinear2d_kernel_impl_float in aten/src/ATen/native/cpu/UpSampleKernel.cpp.

    is_one: whether a single pixel is enlarged, whose channels lie side by side.
    """
    is_plain = sum(new_hw) > SMALL_OUTPUT and not (is_one and channels > 3)
    rows, columns = (_axis(*sizes, is_plain) for sizes in zip(size_hw, new_hw, ratios, strict=True))
    if is_plain:
        return Resize(size_hw[1], rows, columns, PLAIN, channels)
    return Resize(size_hw[1], rows, columns, VECTOR, channels - channels % LANES)


def _axis(size: int, new_size: int, ratio: np.float32, is_plain: bool) -> Axis:
    """compute_source_index_and_lambda in aten/src/ATen/native/UpSample.h; only the other kernel fuses its product."""
    pixels = np.arange(new_size)
    if size == new_size:
        return Axis(np.stack([pixels, pixels], axis=1), np.tile(np.array([1, 0], dtype=np.float32), (size, 1)))
    centres, half = pixels.astype(np.float32) + np.float32(0.5), np.float32(0.5)
    places = np.maximum(ratio * centres - half if is_plain else multiply_add(ratio, centres, -half), np.float32(0))
    before = np.minimum(places.astype(np.int64), size - 1)
    of_next: FloatArray = np.clip(places - before.astype(np.float32), np.float32(0), np.float32(1))
    indices = np.stack([before, np.minimum(before + 1, size - 1)], axis=1)
    weights: FloatArray = np.stack([np.float32(1) - of_next, of_next], axis=1)
    return Axis(indices, weights)


def part(axis: Axis, start: int, end: int) -> Axis:
    return Axis(axis.indices[start:end], axis.weights[start:end])


def resized(values: FloatArray, resize: Resize, rows: Axis) -> FloatArray:
    """The given rows of the resized (C, h, w) values."""
    columns, mixed = resize.columns, []
    (top, bottom), (left, right) = rows.weights.T[:, :, None], columns.weights.T
    for channels, order in ((values[: resize.remainder], resize.order), (values[resize.remainder :], REMAINDER)):
        above, below = channels[:, rows.indices[:, 0]], channels[:, rows.indices[:, 1]]
        a, b = above[:, :, columns.indices[:, 0]], above[:, :, columns.indices[:, 1]]
        c, d = below[:, :, columns.indices[:, 0]], below[:, :, columns.indices[:, 1]]
        mixed.append(mean_of_four(a, b, c, d, top, bottom, left, right, order))
    return np.concatenate(mixed)


def mean_of_four(a: Any, b: Any, c: Any, d: Any, top: Any, bottom: Any, left: Any, right: Any, order: int) -> Any:
    """The bilinear mean of a, b above c, d, float32 arrays or numbers, in one of torch's orders."""
    if order == PLAIN:
        return multiply_add(multiply_add(a, left, b * right), top, multiply_add(c, left, d * right) * bottom)
    if order == VECTOR:
        lower = multiply_add(d, bottom * right, c * (bottom * left))
        return multiply_add(a, top * left, multiply_add(b, top * right, lower))
    upper = multiply_add(a, top * left, b * (top * right))
    return multiply_add(d, bottom * right, multiply_add(c, bottom * left, upper))
