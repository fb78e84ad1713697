"""From mask head outputs to box crops: only the pixels of each box are computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.structures import InstanceMasks
from segkit.utils.compiled import COMPILED, compiled

MASK_THRESHOLD = 0.5  # He et al. 2017, Mask R-CNN, section 3.1
FAR = 3.0  # mask coordinates are from -1 to 1 inside the box; all values here are 0
ROUNDING = 1e-5  # more than rounding can change the bilinear mean of four probabilities
BELOW, ABOVE, MIXED = 0, 1, 2  # four neighbouring values: all below the threshold, all above it, or neither

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def paste_masks(
    mask_probs: FloatArray,
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    class_ids: IntArray,
    size_hw: tuple[int, int],
    threshold: float = MASK_THRESHOLD,
) -> InstanceMasks:
    """Resample each mask onto the pixels of its box and apply the threshold.

    The masks equal those of `paste_masks_in_image` in detectron2/layers/mask_ops.py on a CPU, in the window that it
    computes, except for pixels whose probability is within ROUNDING of the threshold.

    Args:
        mask_probs: (N, m, m') float32 in [0, 1], each spread over its box, 0 outside. Kept in the result.
        boxes_xyxy: (N, 4) float32, pixels of the image. A box outside the image or without a side has an empty mask.
        scores: (N,) float32.
        class_ids: (N,) int64.
        size_hw: (height, width) of the image.
        threshold: Pixels with at least this probability belong to the mask.

    Returns:
        The instances with their crops. N may be 0.

    Raises:
        ValueError: Shapes disagree, a box is not finite, or a probability is outside [0, 1] or NaN.
    """
    _check(mask_probs, boxes_xyxy)
    boxes_xyxy = boxes_xyxy.astype(np.float32, copy=False)
    lows, highs = _compute_windows(boxes_xyxy, size_hw)
    if COMPILED:
        crops = _paste_compiled(mask_probs, boxes_xyxy, lows, highs, threshold)
    else:
        rows = zip(mask_probs, boxes_xyxy, lows, highs, strict=True)
        crops = tuple(_resample(*row) >= np.float32(threshold) for row in rows)
    return InstanceMasks(size_hw, boxes_xyxy, scores, class_ids, lows, crops, mask_probs)


def compute_crop_probs(instances: InstanceMasks, row: int) -> FloatArray:
    """Compute the probability of a mask at each pixel of its crop.

    Args:
        instances: Instances with mask_probs.
        row: Row of the instance.

    Returns:
        (h, w) float32 in [0, 1]. `paste_masks` selects the pixels at or above its threshold.

    Raises:
        ValueError: The instances have no mask_probs.
    """
    if instances.mask_probs is None:
        raise ValueError("mask_probs are needed, but only the binary masks are known")
    low_xy = instances.corners_xy[row]
    return _resample(
        instances.mask_probs[row], instances.boxes_xyxy[row], low_xy, low_xy + instances.crops[row].shape[::-1]
    )


class Axis(NamedTuple):
    """The pixels of N windows along an axis, and the values of the masks around each pixel.

    Attributes:
        begins: (N + 1,) int64, where the pixels of each window begin.
        cells: (P,) int32, index of the value before each pixel's center, from 1. 0 is the padding before the values.
        first_weights: (P,) float32, weight of that value, 0 away from the mask.
        second_weights: (P,) float32, weight of the next value, 0 away from the mask.
    """

    begins: IntArray
    cells: NDArray[np.int32]
    first_weights: FloatArray
    second_weights: FloatArray


def _check(mask_probs: FloatArray, boxes_xyxy: FloatArray) -> None:
    if mask_probs.ndim != 3 or boxes_xyxy.shape != (len(mask_probs), 4):
        got = f"{mask_probs.shape} and {boxes_xyxy.shape}"
        raise ValueError(f"mask_probs must be (N, m, m') and boxes_xyxy (N, 4), got {got}")
    if mask_probs.size and not (mask_probs.min() >= 0 and mask_probs.max() <= 1):
        got = f"{mask_probs.min()}..{mask_probs.max()}"
        raise ValueError(f"mask_probs must be in [0, 1], got {got}: did the training diverge?")
    if not np.isfinite(boxes_xyxy).all():
        raise ValueError("boxes_xyxy must be finite, got NaN or infinity: did the training diverge?")


def _compute_windows(boxes_xyxy: FloatArray, size_hw: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """(N, 2) first pixel (x, y) of each crop and the pixel after its last, as in `_do_paste_mask` of Detectron2."""
    limits = size_hw[::-1]
    lows = np.clip(np.floor(boxes_xyxy[:, :2]) - 1, 0, limits).astype(np.int64)
    highs = np.clip(np.ceil(boxes_xyxy[:, 2:]) + 1, 0, limits).astype(np.int64)
    return lows, np.maximum(lows, highs)


def _build_axes(
    mask_hw: tuple[int, ...], boxes_xyxy: FloatArray, lows_xy: IntArray, highs_xy: IntArray
) -> tuple[Axis, Axis]:
    """The rows and columns of N windows from lows to highs, (N, 2) each, for masks of mask_hw values."""
    columns, rows = (
        _build_axis(lows_xy[:, axis], highs_xy[:, axis], boxes_xyxy[:, axis::2], mask_hw[1 - axis]) for axis in (0, 1)
    )
    return rows, columns


def _build_axis(lows: IntArray, highs: IntArray, edges: FloatArray, count: int) -> Axis:
    """Windows from lows to highs, (N,) each, boxes with the edges (N, 2), and masks of `count` values.

    Coordinates are those of grid_sample (bilinear, align_corners=False): -1 and 1 are the edges of the box.
    """
    sizes = highs - lows
    begins = np.concatenate([[0], np.cumsum(sizes)])
    pixels = np.arange(begins[-1], dtype=np.int32) - np.repeat((begins[:-1] - lows).astype(np.int32), sizes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        starts, lengths = np.repeat(edges[:, 0], sizes), np.repeat(edges[:, 1] - edges[:, 0], sizes)
        positions = (pixels.astype(np.float32) + np.float32(0.5) - starts) / lengths * np.float32(2) - np.float32(1)
    positions = np.where(np.abs(positions) < FAR, positions, np.float32(FAR))  # also NaN of a box without a side
    positions = (positions + np.float32(1)) * np.float32(count / 2) - np.float32(0.5)
    before = np.floor(positions)
    near = (before >= -1) & (before < count)
    second_weights = np.where(near, positions - before, np.float32(0))
    first_weights = np.where(near, np.float32(1) - second_weights, np.float32(0))
    return Axis(begins, np.where(near, before, np.float32(-1)).astype(np.int32) + 1, first_weights, second_weights)


def _resample(probs: FloatArray, box_xyxy: FloatArray, low_xy: IntArray, high_xy: IntArray) -> FloatArray:
    """(h, w): the probabilities of one mask at the pixels of its crop, from low to high."""
    rows, columns = _build_axes(probs.shape, box_xyxy[None].astype(np.float32), low_xy[None], high_xy[None])
    padded = np.pad(probs.astype(np.float32, copy=False), 1)
    lines = padded[:, columns.cells] * columns.first_weights + padded[:, columns.cells + 1] * columns.second_weights
    crop: FloatArray = lines[rows.cells] * rows.first_weights[:, None]
    crop += lines[rows.cells + 1] * rows.second_weights[:, None]
    return crop


def _paste_compiled(
    mask_probs: FloatArray, boxes_xyxy: FloatArray, lows: IntArray, highs: IntArray, threshold: float
) -> tuple[BoolArray, ...]:
    probs = np.require(mask_probs, np.float32, ["C", "A", "W"])  # one memory layout, so that one variant is compiled
    sides_hw = highs[:, ::-1] - lows[:, ::-1]
    ends = np.cumsum(sides_hw.prod(axis=1))
    pixels = np.empty(ends.max(initial=0), dtype=np.bool_)
    _fill(probs, *_build_axes(probs.shape[1:], boxes_xyxy, lows, highs), np.float32(threshold), pixels)
    flat_crops = np.split(pixels, ends)[:-1]
    return tuple(crop.reshape(side_hw) for crop, side_hw in zip(flat_crops, sides_hw.tolist(), strict=True))


@compiled  # 5 times as fast as numpy
def _fill(mask_probs: FloatArray, rows: Axis, columns: Axis, threshold: np.float32, pixels: BoolArray) -> None:
    """Write all crops one after another.

    Between four values that are all above or all below the threshold nothing is computed.
    """
    begin = 0
    for index in range(len(mask_probs)):
        padded = np.zeros((mask_probs.shape[1] + 2, mask_probs.shape[2] + 2), dtype=np.float32)
        padded[1:-1, 1:-1] = mask_probs[index]
        states = _classify_cells(padded, threshold)
        window = slice(columns.begins[index], columns.begins[index + 1])
        cells, left_weights, right_weights = (
            columns.cells[window],
            columns.first_weights[window],
            columns.second_weights[window],
        )
        lines, spans = np.empty((2, cells.size), dtype=np.float32), np.empty((cells.size, 3), dtype=np.int64)
        cell, count = -1, 0
        for y in range(rows.begins[index], rows.begins[index + 1]):
            if rows.cells[y] != cell:
                cell = rows.cells[y]
                count = _find_spans(states[cell], cells, spans)
                for start, stop, state in spans[:count]:
                    if state == MIXED:
                        for x in range(start, stop):
                            left, right = cells[x], cells[x] + 1
                            a, b = left_weights[x], right_weights[x]
                            lines[0, x] = padded[cell, left] * a + padded[cell, right] * b
                            lines[1, x] = padded[cell + 1, left] * a + padded[cell + 1, right] * b
            row, above, below = pixels[begin : begin + cells.size], rows.first_weights[y], rows.second_weights[y]
            begin += cells.size
            for start, stop, state in spans[:count]:
                if state != MIXED:
                    row[start:stop] = state == ABOVE
                    continue
                for x in range(start, stop):
                    row[x] = lines[0, x] * above + lines[1, x] * below >= threshold


@compiled
def _classify_cells(padded: FloatArray, threshold: np.float32) -> NDArray[np.uint8]:
    """(m + 1, m' + 1): BELOW, ABOVE or MIXED for each four neighbouring values."""
    states = np.empty((padded.shape[0] - 1, padded.shape[1] - 1), dtype=np.uint8)
    for y in range(states.shape[0]):
        for x in range(states.shape[1]):
            low = min(min(padded[y, x], padded[y, x + 1]), min(padded[y + 1, x], padded[y + 1, x + 1]))
            high = max(max(padded[y, x], padded[y, x + 1]), max(padded[y + 1, x], padded[y + 1, x + 1]))
            states[y, x] = ABOVE if low > threshold + ROUNDING else BELOW if high < threshold - ROUNDING else MIXED
    return states


@compiled
def _find_spans(states: NDArray[np.uint8], cells: NDArray[np.int32], spans: IntArray) -> int:
    """Write (first pixel, the pixel after the last, state) of each span of pixels of one state; return their number."""
    count, x = 0, 0
    while x < cells.size:
        start, state = x, states[cells[x]]
        while x < cells.size and states[cells[x]] == state:
            x += 1
        spans[count, 0], spans[count, 1], spans[count, 2] = start, x, state
        count += 1
    return count
