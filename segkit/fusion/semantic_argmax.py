"""The best channel of each pixel, from the small logits of the semantic head. Most pixels need no interpolation.

Detectron2 enlarges the logits of its head by the head's stride (SemSegFPNHead.forward), crops the padding away and
resizes the rest to the size of the image (sem_seg_postprocess). Both steps are bilinear and run for every channel.
Together they make each output pixel a weighted mean of at most 3 x 3 small logits, with weights from 0 to 1. If one
channel is the best in all of these, it is the best in the mean. Only the other pixels are interpolated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.utils.compiled import compiled

TAPS = 3  # small logits along an axis that an output pixel can depend on: two enlarged pixels share one of their two
# Float32 rounds positions and sums. Between two implementations the argmax may differ if the best logits are closer
# than this share of the largest absolute logit: positions up to 2048 are rounded by 2^-14 pixels.
TOLERANCE = 1e-4
MIXED = -1  # instead of a channel: the small logits around a pixel do not agree on one

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def argmax_upsampled(
    logits: FloatArray, scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int]
) -> NDArray[np.unsignedinteger]:
    """Compute the argmax over channels of enlarged, cropped and resized logits, without making these.

    Equal to the argmax after Detectron2's two bilinear resizes, unless the two best logits of a pixel differ by less
    than TOLERANCE times the largest absolute logit. Without numba this is slow: resize with torch then.

    Args:
        logits: (C, h, w) float32, finite, C at least 1.
        scale: Integer from 1, the stride of the head, by which the logits are enlarged.
        image_size_hw: (height, width) of the network's image without padding, at most (scale h, scale w).
        size_hw: (H, W) of the result.

    Returns:
        (H, W) uint8, or uint16 for more than 256 channels: the channel of the highest logit, the first of equal ones.

    Raises:
        ValueError: A shape, dtype or size is wrong, or a logit is NaN or infinite.
    """
    _check(logits, scale, image_size_hw, size_hw)
    low, high = float(logits.min()), float(logits.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"logits must be finite, got values from {low} to {high}: did the training diverge?")
    logits = np.require(logits, np.float32, ["C", "A", "W"])
    rows, columns = (_build_axis(*sizes, scale) for sizes in zip(logits.shape[1:], image_size_hw, size_hw, strict=True))
    channels = np.empty(size_hw, dtype=np.min_scalar_type(len(logits) - 1))
    _fill(logits, rows, columns, channels)
    return channels


class Axis(NamedTuple):
    """One axis of the output. Neighbouring pixels that depend on the same small logits form a group.

    Attributes:
        weights: (n, TAPS) float32, of the small logits from `first` of the pixel's group on; they add up to 1.
        starts: (groups + 1,) int64, the first pixel of each group, and n.
        first: (groups,) int64, the first small logit that the group depends on.
        last: (groups,) int64, the last one.
    """

    weights: FloatArray
    starts: IntArray
    first: IntArray
    last: IntArray


def _check(logits: FloatArray, scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    if logits.ndim != 3 or logits.dtype != np.float32 or not logits.size:
        raise ValueError(f"logits must be (C, h, w) float32 and not empty, got {logits.shape} {logits.dtype}")
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a whole number from 1, got {scale!r}")
    if min(size_hw) < 1:
        raise ValueError(f"size_hw must be at least 1 x 1, got {size_hw}")
    enlarged_hw = (logits.shape[1] * scale, logits.shape[2] * scale)
    if min(image_size_hw) < 1 or image_size_hw[0] > enlarged_hw[0] or image_size_hw[1] > enlarged_hw[1]:
        raise ValueError(f"image_size_hw must be from 1 x 1 to scale x (h, w) = {enlarged_hw}, got {image_size_hw}")


def _build_axis(small_size: int, image_size: int, size: int, scale: int) -> Axis:
    """Both resizes along an axis: each output pixel from two enlarged pixels, each of these from two small logits."""
    enlarged_indices, enlarged_weights = _neighbours(small_size, small_size * scale)
    image_indices, image_weights = _neighbours(image_size, size)
    indices = enlarged_indices[image_indices].reshape(-1, 4)
    products = (image_weights[:, :, None] * enlarged_weights[image_indices]).reshape(-1, 4)
    is_used = products > 0
    first = np.where(is_used, indices, small_size).min(axis=1)
    last = np.where(is_used, indices, -1).max(axis=1)
    weights = np.zeros((size, TAPS), dtype=np.float32)
    pixels, corners = np.nonzero(is_used)
    np.add.at(weights, (pixels, indices[pixels, corners] - first[pixels]), products[pixels, corners])
    changes = np.flatnonzero((np.diff(first) != 0) | (np.diff(last) != 0)) + 1
    starts = np.concatenate([[0], changes, [size]])
    return Axis(weights, starts, first[starts[:-1]], last[starts[:-1]])


def _neighbours(size: int, new_size: int) -> tuple[IntArray, FloatArray]:
    """The two pixels around each pixel of a bilinear resize, and their weights, (new_size, 2) each."""
    centers = np.arange(new_size, dtype=np.float32) + np.float32(0.5)
    positions = np.maximum(centers * (np.float32(size) / np.float32(new_size)) - np.float32(0.5), np.float32(0))
    before = np.minimum(positions.astype(np.int64), size - 1)
    of_next: FloatArray = np.clip(positions - before.astype(np.float32), np.float32(0), np.float32(1))
    indices = np.stack([before, np.minimum(before + 1, size - 1)], axis=1)
    return indices, np.stack([np.float32(1) - of_next, of_next], axis=1)


@compiled
def _fill(logits: FloatArray, rows: Axis, columns: Axis, channels: NDArray[np.unsignedinteger]) -> None:
    """From top to bottom. Only the small rows that a group of rows depends on are kept."""
    count, _, width = logits.shape
    near = np.zeros((TAPS, width * count), dtype=np.float32)  # small row y, transposed to (w, C), is at y % TAPS
    agreed_in_row = np.empty((TAPS, len(columns.first)), dtype=np.int32)
    mixed, mean = np.empty(width * count, dtype=np.float32), np.empty(count, dtype=np.float32)
    end = 0
    for group in range(len(rows.first)):
        first, last = rows.first[group], rows.last[group]
        for row in range(max(end, first), last + 1):
            _add_row(logits[:, row], columns, near[row % TAPS], agreed_in_row[row % TAPS])
        end = last + 1
        agreed = agreed_in_row[first % TAPS].copy()
        for row in range(first + 1, last + 1):
            agreed[agreed_in_row[row % TAPS] != agreed] = MIXED
        block = 0
        while block < agreed.size:
            begin, channel = block, agreed[block]
            while block < agreed.size and agreed[block] == channel:
                block += 1
            for y in range(rows.starts[group], rows.starts[group + 1]):
                if channel == MIXED:
                    _interpolate(near, first, rows.weights[y], columns, begin, block, mixed, mean, channels[y])
                else:
                    channels[y, columns.starts[begin] : columns.starts[block]] = channel


@compiled
def _add_row(row: FloatArray, columns: Axis, transposed: FloatArray, agreed: NDArray[np.int32]) -> None:
    """Transpose a small row, (C, w), and find for each group of columns the channel that is the best in all of them.

    It is the first of equal ones everywhere, so that it is also the first of equal ones in every mean.
    """
    count = len(row)
    best, argmax = row[0].copy(), np.zeros(row.shape[1], dtype=np.int32)
    transposed[::count] = row[0]
    for channel in range(1, count):
        values, target = row[channel], transposed[channel::count]
        for x in range(values.size):
            value = values[x]
            target[x] = value
            argmax[x] = channel if value > best[x] else argmax[x]
            best[x] = value if value > best[x] else best[x]
    for group in range(agreed.size):
        agreed[group] = argmax[columns.first[group]]
        for x in range(columns.first[group] + 1, columns.last[group] + 1):
            agreed[group] = agreed[group] if argmax[x] == agreed[group] else MIXED


@compiled
def _interpolate(
    near: FloatArray,
    first: int,
    weights: FloatArray,
    columns: Axis,
    begin: int,
    end: int,
    mixed: FloatArray,
    mean: FloatArray,
    line: NDArray[np.unsignedinteger],
) -> None:
    """Write the pixels of the column groups begin..end of an output row. mixed, mean: (w C,) and (C,), overwritten."""
    count = mean.size
    span = slice(columns.first[begin] * count, (columns.last[end - 1] + 1) * count)
    _mix(near[first % TAPS, span], near[(first + 1) % TAPS, span], near[(first + 2) % TAPS, span], weights, mixed[span])
    for group in range(begin, end):
        at = columns.first[group] * count
        right, far = min(at + count, span.stop - count), min(at + 2 * count, span.stop - count)
        for x in range(columns.starts[group], columns.starts[group + 1]):
            left = mixed[at : at + count]
            _mix(left, mixed[right : right + count], mixed[far : far + count], columns.weights[x], mean)
            line[x] = _first_highest(mean)


@compiled
def _mix(first: FloatArray, second: FloatArray, third: FloatArray, weights: FloatArray, mean: FloatArray) -> None:
    a, b, c = weights
    if c == 0:
        for k in range(mean.size):
            mean[k] = first[k] * a + second[k] * b
    else:
        for k in range(mean.size):
            mean[k] = first[k] * a + second[k] * b + third[k] * c


@compiled
def _first_highest(values: FloatArray) -> int:
    highest, index = values[0], 0
    for k in range(1, values.size):
        if values[k] > highest:
            highest, index = values[k], k
    return index
