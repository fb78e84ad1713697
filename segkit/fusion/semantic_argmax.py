"""The best channel of each pixel, straight from the semantic head's small logits: most pixels need no interpolation.

Detectron2 enlarges the logits of its head by its stride (SemSegFPNHead.forward), crops the padding away and resizes
what is left to the size of the picture (sem_seg_postprocess), both bilinearly and for every channel, and only then asks
for the best one. Each of these values is a mean of at most 3 x 3 of the small logits: where one channel is the best in
all of these, it is the best of the mean. Only the other pixels are interpolated, in the very arithmetic of torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.torch_bilinear import (
    PLAIN,
    REMAINDER,
    Axis,
    FloatArray,
    IntArray,
    Resize,
    mean_of_four,
    part,
    resized,
    two_resizes,
)
from segkit.utils.compiled import COMPILED, compiled

REACH = 3  # small pixels along an axis that a pixel can depend on: two enlarged pixels, which have one in common
# A channel that is ahead by more than this share of the largest logit stays ahead: torch rounds each term of the two
# sums at most 10 times, by 2^-24 each, so that it moves two channels by less than 20 x 2^-24 towards each other.
RELATIVE_LEAD, LEAST_LEAD = 2.0**-19, 2.0**-120
UNSURE = -1  # instead of a channel: pixels that must be interpolated
MEANS = 5  # four enlarged pixels and the pixel between them
CHUNK_ROWS = 8  # rows of the result that the numpy way makes at once

Four = tuple[Any, Any, Any, Any]


def argmax_upsampled(
    logits: FloatArray, scale: int, image_size_hw: tuple[int, int], size_hw: tuple[int, int]
) -> NDArray[np.unsignedinteger]:
    """(H, W) uint8 (uint16 for more than 256 channels): the channel of the highest logit, of equal ones the first.

    logits: (C, h, w) float32, C at least 1. scale: the head's stride, by which they are enlarged; 1 leaves them.
    image_size_hw: what the network saw without padding, at most (scale h, scale w). size_hw: (H, W) of the result.

    The same as the argmax over channels after both of Detectron2's resizes of contiguous float32 logits, pixel for
    pixel and equal logits included, on a CPU for which torch fuses multiply-adds (x86 from AVX2 on). Elsewhere, and on
    a GPU, a pixel may differ where two channels are equal but for rounding. So it may for 3 channels, where torch's
    rounding depends on its number of threads; and on AVX2 where height + width of the result or of the enlarged logits
    is at most SMALL_OUTPUT. Without numba the result is the same, but torch is many times faster: use it then.
    Raises ValueError for a wrong shape, dtype or size, and where a logit is NaN or infinite.
    """
    _check(logits, scale, image_size_hw, size_hw)
    low, high = float(logits.min()), float(logits.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"logits must be finite, got values from {low} to {high}: did the training diverge?")
    logits = np.require(logits, np.float32, ["C", "A", "W"])
    enlarge, fit = two_resizes(logits.shape, scale, image_size_hw, size_hw)
    winners = np.empty(size_hw, dtype=np.min_scalar_type(len(logits) - 1))
    if COMPILED:
        lead = max(-low, high) * RELATIVE_LEAD + LEAST_LEAD
        if enlarge.order != PLAIN or fit.order != PLAIN:
            lead = np.inf  # channels are rounded in two ways: even a channel that is never behind can come out lower
        rows, columns = _support(enlarge.rows, fit.rows), _support(enlarge.columns, fit.columns)
        _fill(logits, np.float32(lead), rows, columns, enlarge, fit, winners)
    else:
        _fill_plainly(logits, enlarge, fit, winners)
    return winners


class Support(NamedTuple):
    """One axis of both resizes together, its pixels in groups that depend on the same small pixels."""

    starts: IntArray  # (groups + 1,), the first pixel of each, and the end
    first: IntArray  # (groups,), the small pixels first..last, at most REACH
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


def _support(enlarge: Axis, fit: Axis) -> Support:
    """Of small pixels whose weight is not 0."""
    indices = enlarge.indices[fit.indices].reshape(-1, 4)
    counts = (fit.weights[:, :, None] > 0) & (enlarge.weights[fit.indices] > 0)
    first = np.where(counts.reshape(-1, 4), indices, np.iinfo(np.int64).max).min(axis=1)
    last = np.where(counts.reshape(-1, 4), indices, -1).max(axis=1)
    changes = np.flatnonzero((np.diff(first) != 0) | (np.diff(last) != 0)) + 1
    starts = np.concatenate([[0], changes, [len(first)]])
    return Support(starts, first[starts[:-1]], last[starts[:-1]])


_mean_compiled = compiled(mean_of_four)


def _fill_plainly(logits: FloatArray, enlarge: Resize, fit: Resize, winners: NDArray[np.unsignedinteger]) -> None:
    for start in range(0, len(winners), CHUNK_ROWS):
        wanted = part(fit.rows, start, start + CHUNK_ROWS)
        first, end = int(wanted.indices.min()), int(wanted.indices.max()) + 1
        enlarged = resized(logits, enlarge, part(enlarge.rows, first, end))
        values = resized(enlarged, fit, Axis(wanted.indices - first, wanted.weights))
        winners[start : start + CHUNK_ROWS] = values.argmax(axis=0)


@compiled
def _fill(
    logits: FloatArray,
    lead: np.float32,
    rows: Support,
    columns: Support,
    enlarge: Resize,
    fit: Resize,
    winners: NDArray[np.unsignedinteger],
) -> None:
    """From top to bottom, keeping only the small rows that a group of rows depends on."""
    near = np.zeros((REACH, logits.shape[2] * len(logits)), dtype=np.float32)  # what has no weight must be finite
    keys = np.empty((REACH, len(columns.first)), dtype=np.int32)
    means = np.zeros((MEANS, len(logits)), dtype=np.float32)
    seen = 0
    for group in range(len(rows.first)):
        first, last = rows.first[group], rows.last[group]
        for small in range(max(seen, first), last + 1):
            _take_row(logits[:, small], lead, columns, near[small % REACH], keys[small % REACH])
        seen = last + 1
        sure = _agreed(keys, first, last)
        block = 0
        while block < sure.size:
            key, start = sure[block], columns.starts[block]
            while block < sure.size and sure[block] == key:
                block += 1
            for y in range(rows.starts[group], rows.starts[group + 1]):
                line = winners[y, start : columns.starts[block]]
                if key == UNSURE:
                    _interpolate(near.reshape(-1), enlarge, fit, y, start, line, means.reshape(-1))
                else:
                    line[:] = key


@compiled
def _take_row(row: FloatArray, lead: np.float32, columns: Support, near: FloatArray, keys: NDArray[np.int32]) -> None:
    """near: (w C,), the (C, w) small row transposed. keys: (groups,), the channel that surely wins in a group of
    columns as far as this row goes, or UNSURE: it is the best in each small pixel, and has the lead over those before
    it, to which equal logits would go."""
    count = len(row)
    best, before = row[0].copy(), np.full(row.shape[1], -np.inf, dtype=np.float32)
    winner = np.zeros(row.shape[1], dtype=np.int32)
    near[::count] = row[0]
    for channel in range(1, count):
        values, transposed = row[channel], near[channel::count]
        for x in range(values.size):
            value, high = values[x], best[x]
            transposed[x] = value
            before[x] = high if value > high else before[x]
            winner[x] = channel if value > high else winner[x]
            best[x] = value if value > high else high
    for group in range(len(keys)):
        key = winner[columns.first[group]]
        for x in range(columns.first[group], columns.last[group] + 1):
            key = key if winner[x] == key and best[x] - before[x] > lead else UNSURE
        keys[group] = key


@compiled
def _agreed(keys: NDArray[np.int32], first: int, last: int) -> NDArray[np.int32]:
    """(groups,): the key that the small rows first..last have in common, else UNSURE."""
    sure: NDArray[np.int32] = keys[first % REACH].copy()
    for small in range(first + 1, last + 1):
        others = keys[small % REACH]
        for group in range(sure.size):
            sure[group] = sure[group] if others[group] == sure[group] else UNSURE
    return sure


@compiled
def _interpolate(
    near: FloatArray,
    enlarge: Resize,
    fit: Resize,
    y: int,
    start: int,
    line: NDArray[np.unsignedinteger],
    means: FloatArray,
) -> None:
    """The winners of a run of pixels of row y. means: (MEANS C,) to write to: four enlarged pixels, and their mean."""
    count = means.size // MEANS
    for x in range(start, start + line.size):
        for corner in range(4):
            i, j = corner // 2, corner % 2
            if fit.rows.weights[y, i] > 0 and fit.columns.weights[x, j] > 0:
                row, column = fit.rows.indices[y, i], fit.columns.indices[x, j]
                begins, weights = _corners(enlarge, row, column, count), _weights(enlarge, row, column)
                mean = means[corner * count : (corner + 1) * count]
                _mix(near, begins, weights, enlarge.order, enlarge.remainder, mean)
        mean = means[:count]
        if fit.rows.weights[y, 1] > 0 or fit.columns.weights[x, 1] > 0:
            mean = means[4 * count :]
            begins = 0, count, 2 * count, 3 * count
            _mix(means, begins, _weights(fit, y, x), fit.order, fit.remainder, mean)
        line[x - start] = _first_highest(mean)


@compiled
def _corners(enlarge: Resize, row: int, column: int, count: int) -> Four:
    """Where in `near` the channels of the four small pixels around an enlarged one begin."""
    stride = count * enlarge.width
    above, below = enlarge.rows.indices[row, 0] % REACH * stride, enlarge.rows.indices[row, 1] % REACH * stride
    left, right = enlarge.columns.indices[column, 0] * count, enlarge.columns.indices[column, 1] * count
    return above + left, above + right, below + left, below + right


@compiled
def _weights(resize: Resize, y: int, x: int) -> Four:
    of_rows, of_columns = resize.rows.weights, resize.columns.weights
    return of_rows[y, 0], of_rows[y, 1], of_columns[x, 0], of_columns[x, 1]


@compiled
def _mix(values: FloatArray, begins: Four, weights: Four, order: int, remainder: int, mean: FloatArray) -> None:
    """mean: (C,) to write to. begins: where in `values` the channels of each of the four begin."""
    top, bottom, left, right = weights
    a, b = values[begins[0] : begins[0] + mean.size], values[begins[1] : begins[1] + mean.size]
    c, d = values[begins[2] : begins[2] + mean.size], values[begins[3] : begins[3] + mean.size]
    for k in range(remainder):
        mean[k] = _mean_compiled(a[k], b[k], c[k], d[k], top, bottom, left, right, order)
    for k in range(remainder, mean.size):
        mean[k] = _mean_compiled(a[k], b[k], c[k], d[k], top, bottom, left, right, REMAINDER)


@compiled
def _first_highest(values: FloatArray) -> int:
    high, winner = values[0], 0
    for k in range(1, values.size):
        if values[k] > high:
            high, winner = values[k], k
    return winner
