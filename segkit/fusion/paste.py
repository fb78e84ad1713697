"""Mask head outputs -> box crops: pasting that touches only the pixels of each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.structures import InstanceMasks
from segkit.utils.compiled import COMPILED, compiled

MASK_THRESHOLD = 0.5  # He et al. 2017, Mask R-CNN, section 3.1
FAR = 3.0  # mask coordinates run from -1 to 1 inside the box; here nothing of the mask is near
ROUNDING = 1e-5  # far more than rounding can change in a mean of four numbers in [0, 1]
BELOW, ABOVE, MIXED = 0, 1, 2  # where the pixels between four values lie: the threshold parts those of a MIXED cell

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
    """Resample each mask onto the pixels of its box, and take what is at or above the threshold.

    mask_probs: (N, m, m') float32 in [0, 1], each spread over its box, 0 outside it; kept in the result. boxes_xyxy:
    (N, 4) float32, pixels of the image of size_hw; one that is outside the image or has no width or height gives an
    empty mask. scores: (N,) float32. class_ids: (N,) int64. N may be 0.

    The crops are, to the pixel, the masks of detectron2/layers/mask_ops.py `paste_masks_in_image` on a CPU with fused
    multiply-add, in the window that it computes. They lie one after another in one buffer (see `flatten_crops`).
    Raises ValueError where shapes disagree, a box is not finite, or a probability is outside [0, 1] or NaN.
    """
    _check(mask_probs, boxes_xyxy)
    boxes_xyxy = boxes_xyxy.astype(np.float32, copy=False)
    lows, highs = _windows(boxes_xyxy, size_hw)
    rows = _axis(lows[:, 1], highs[:, 1], boxes_xyxy[:, 1::2], mask_probs.shape[1])
    columns = _axis(lows[:, 0], highs[:, 0], boxes_xyxy[:, 0::2], mask_probs.shape[2])
    sides_hw = highs[:, ::-1] - lows[:, ::-1]
    ends = np.cumsum(sides_hw.prod(axis=1))
    pixels = np.empty(ends[-1] if len(ends) else 0, dtype=np.bool_)
    fill = _paste_compiled if COMPILED else _paste_numpy
    fill(_plain(mask_probs), rows, columns, np.float32(threshold), pixels)
    flat = np.split(pixels, ends[:-1]) if len(ends) else []
    crops = tuple(part.reshape(side_hw) for part, side_hw in zip(flat, sides_hw.tolist(), strict=True))
    return InstanceMasks(size_hw, boxes_xyxy, scores, class_ids, lows, crops, mask_probs)


def compute_crop_probs(instances: InstanceMasks, row: int) -> FloatArray:
    """(h, w) float32 in [0, 1]: the probability of the mask at each pixel of the window of crop `row`.

    `paste_masks` takes the pixels at or above its threshold. Raises ValueError where the instances have no mask_probs.
    """
    if instances.mask_probs is None:
        raise ValueError("mask_probs are needed, but only the binary masks are known")
    probs, box = _plain(instances.mask_probs[row]), instances.boxes_xyxy[row : row + 1].astype(np.float32)
    window = [(np.array([side.start]), np.array([side.stop])) for side in instances.window(row)]
    rows = _axis(*window[0], box[:, 1::2], probs.shape[0])
    columns = _axis(*window[1], box[:, 0::2], probs.shape[1])
    return _resample(probs, rows, columns)


def flatten_crops(instances: InstanceMasks) -> tuple[BoolArray, IntArray]:
    """The pixels of all crops in one row, (P,) bool, and where each crop begins, (N,) int64.

    Crops of `paste_masks` are not copied: they lie so already.
    """
    crops = instances.crops
    if (buffer := _shared_buffer(crops)) is not None:
        addresses = [crop.__array_interface__["data"][0] for crop in crops]
        return buffer, np.array(addresses) - buffer.__array_interface__["data"][0]
    begins = np.cumsum([0, *(crop.size for crop in crops)])[:-1]
    return np.concatenate([np.zeros(0, dtype=np.bool_), *(crop.ravel() for crop in crops)]), begins


class Axis(NamedTuple):
    """The pixels of N windows along an axis, and how each lies between the values of its mask.

    begins: (N + 1,) where each window's pixels begin. cells: of each pixel, which value of the mask is the one before
    its centre, from 1; 0 is the padding before the first. first_weights, second_weights: float32, the weights of that
    value and of the next, both 0 away from the mask.
    """

    begins: IntArray
    cells: NDArray[np.int32]
    first_weights: FloatArray
    second_weights: FloatArray


def _shared_buffer(crops: Sequence[BoolArray]) -> BoolArray | None:
    base = crops[0].base if crops else None
    if not isinstance(base, np.ndarray) or base.ndim != 1 or base.dtype != np.bool_ or not base.flags.carray:
        return None
    return base if all(crop.base is base and crop.flags.c_contiguous for crop in crops) else None


def _check(mask_probs: FloatArray, boxes_xyxy: FloatArray) -> None:
    if mask_probs.ndim != 3 or boxes_xyxy.shape != (len(mask_probs), 4):
        got = f"{mask_probs.shape} and {boxes_xyxy.shape}"
        raise ValueError(f"mask_probs must be (N, m, m') and boxes_xyxy (N, 4), got {got}")
    if mask_probs.size and not (mask_probs.min() >= 0 and mask_probs.max() <= 1):
        got = f"{mask_probs.min()}..{mask_probs.max()}"
        raise ValueError(f"mask_probs must be in [0, 1], got {got}; NaN tells of a training that diverged")
    if not np.isfinite(boxes_xyxy).all():
        raise ValueError("boxes_xyxy must be finite, got NaN or infinity: did the training diverge?")


def _plain(values: NDArray[Any]) -> FloatArray:
    """One memory layout and type, so that one variant is compiled."""
    return np.require(values, np.float32, ["C", "A", "W"])


def _windows(boxes_xyxy: FloatArray, size_hw: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """(N, 2) first pixel (x, y) of each crop and the one after its last, as `_do_paste_mask` cuts them."""
    limits = size_hw[::-1]
    lows = np.clip(np.floor(boxes_xyxy[:, :2]) - 1, 0, limits).astype(np.int64)
    highs = np.clip(np.ceil(boxes_xyxy[:, 2:]) + 1, 0, limits).astype(np.int64)
    return lows, np.maximum(lows, highs)


def _axis(lows: IntArray, highs: IntArray, edges: FloatArray, count: int) -> Axis:
    """Windows from lows to highs, (N,) each, over boxes with these two edges, (N, 2), and masks of `count` values.

    The order of operations is that of `_do_paste_mask` and torch's grid_sample (bilinear, align_corners=False).
    """
    sizes = highs - lows
    begins = np.concatenate([[0], np.cumsum(sizes)])
    pixels = np.arange(begins[-1], dtype=np.int32) - np.repeat((begins[:-1] - lows).astype(np.int32), sizes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        starts, lengths = np.repeat(edges[:, 0], sizes), np.repeat(edges[:, 1] - edges[:, 0], sizes)
        place = (pixels.astype(np.float32) + np.float32(0.5) - starts) / lengths * np.float32(2) - np.float32(1)
    place = np.where(np.abs(place) < FAR, place, np.float32(FAR))  # also NaN and infinity, of a box without length
    place = (place + np.float32(1)) * np.float32(count / 2) - np.float32(0.5)
    before = np.floor(place)
    near = (before >= -1) & (before < count)
    second_weights = np.where(near, place - before, np.float32(0))
    first_weights = np.where(near, np.float32(1) - second_weights, np.float32(0))
    return Axis(begins, np.where(near, before, np.float32(-1)).astype(np.int32) + 1, first_weights, second_weights)


def _paste_numpy(mask_probs: FloatArray, rows: Axis, columns: Axis, threshold: np.float32, pixels: BoolArray) -> None:
    end = 0
    for index, probs in enumerate(mask_probs):
        crop = _resample(probs, _select_window(rows, index), _select_window(columns, index)) >= threshold
        end += crop.size
        pixels[end - crop.size : end] = crop.ravel()


def _select_window(axis: Axis, index: int) -> Axis:
    begin, end = axis.begins[index : index + 2]
    span = slice(begin, end)
    return Axis(np.array([0, end - begin]), axis.cells[span], axis.first_weights[span], axis.second_weights[span])


def _resample(probs: FloatArray, rows: Axis, columns: Axis) -> FloatArray:
    padded = np.pad(probs, 1)
    lines = padded[:, columns.cells] * columns.first_weights + padded[:, columns.cells + 1] * columns.second_weights
    crop: FloatArray = lines[rows.cells] * rows.first_weights[:, None]
    crop += lines[rows.cells + 1] * rows.second_weights[:, None]
    return crop


@compiled
def _paste_compiled(
    mask_probs: FloatArray, rows: Axis, columns: Axis, threshold: np.float32, pixels: BoolArray
) -> None:
    """As `_paste_numpy`. Between four values that are all above or all below the threshold nothing is computed."""
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
