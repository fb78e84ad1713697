"""Overlap of two label maps: how many pixels hold each pair of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures import IdRuns
from segkit.structures.id_runs import sum_by_key
from segkit.utils.compiled import COMPILED, compiled
from segkit.utils.errors import DatasetError

IntArray = NDArray[np.integer[Any]]
Pairs = tuple[IntArray, IntArray, NDArray[np.int64]]  # ground truth labels, predicted labels, pixels

ID_BITS, LOW_BITS = np.uint64(32), np.uint64(0xFFFFFFFF)  # of a key: the ground truth id above, the predicted one below
MAX_CELLS = 1 << 16  # of a table of all pairs of labels; with more cells the pairs are sorted
SIGN = np.uint32(0x80000000)  # if it is flipped, unsigned keys are in the order of signed ids


def count_pairs(ground_truth: IntArray, prediction: IntArray, where: object = "") -> Pairs:
    """Count the pixels of every distinct pair (ground truth label, predicted label).

    Runs of equal pairs are counted, not pixels: maps of segments have few runs.

    Args:
        ground_truth: (H, W) integers of any dtype.
        prediction: (H, W) integers of any dtype.
        where: Place for error messages.

    Returns:
        Three arrays of length P: ground truth labels and predicted labels in their own dtypes, and int64 pixels. The
        order is by ground truth label, then by predicted label. P is 0 if the maps have no pixels.

    Raises:
        ValueError: A map is not an (H, W) integer array.
        DatasetError: The sizes differ.
    """
    check_map("ground_truth", ground_truth)
    check_map("prediction", prediction)
    _check_same_size(ground_truth.shape, prediction.shape, where)
    gt_row: IntArray = ground_truth.ravel()
    pred_row: IntArray = prediction.ravel()
    starts = _find_run_starts(gt_row, pred_row)
    lengths = np.diff(starts, append=gt_row.size)
    gt_row, pred_row = gt_row[starts], pred_row[starts]
    if starts.size and min(gt_row.min(), pred_row.min()) >= 0:
        columns = int(pred_row.max()) + 1
        if (int(gt_row.max()) + 1) * columns <= MAX_CELLS:  # classes: no need to sort
            totals = np.bincount(gt_row.astype(np.int64) * columns + pred_row.astype(np.int64), weights=lengths)
            cells = np.flatnonzero(totals)
            gt_labels, pred_labels = np.divmod(cells, columns)
            return gt_labels.astype(gt_row.dtype), pred_labels.astype(pred_row.dtype), totals[cells].astype(np.int64)
    order = np.lexsort((pred_row, gt_row))
    gt_row, pred_row = gt_row[order], pred_row[order]
    starts = _find_run_starts(gt_row, pred_row)
    return gt_row[starts], pred_row[starts], np.add.reduceat(lengths[order], starts)


def count_run_pairs(ground_truth: IdRuns, prediction: IdRuns, where: object = "") -> Pairs:
    """Count the pixels of every distinct pair (ground truth id, predicted id) without looking at pixels.

    Args:
        ground_truth: Runs of an (H, W) int32 map.
        prediction: Runs of an (H, W) int32 map.
        where: Place for error messages.

    Returns:
        The same three arrays as `count_pairs` gives for the two maps.

    Raises:
        DatasetError: The sizes differ.
    """
    _check_same_size(ground_truth.size_hw, prediction.size_hw, where)
    size = ground_truth.size_hw[0] * ground_truth.size_hw[1]
    gt_bits, pred_bits = (runs.ids.view(np.uint32) ^ SIGN for runs in (ground_truth, prediction))
    if COMPILED:  # 12 to 20 times as fast as numpy
        keys, lengths = _merge_runs(ground_truth.starts, gt_bits, prediction.starts, pred_bits, size)
    else:
        starts = np.union1d(ground_truth.starts, prediction.starts)
        first = gt_bits[np.searchsorted(ground_truth.starts, starts, "right") - 1].astype(np.uint64)
        second = pred_bits[np.searchsorted(prediction.starts, starts, "right") - 1].astype(np.uint64)
        keys, lengths = first << ID_BITS | second, np.diff(starts, append=np.int32(size))
    keys, pixels = sum_by_key(keys, lengths)
    bits = (keys >> ID_BITS).astype(np.uint32), (keys & LOW_BITS).astype(np.uint32)
    return (bits[0] ^ SIGN).view(np.int32), (bits[1] ^ SIGN).view(np.int32), pixels


def check_map(name: str, labels: IntArray) -> None:
    """Check that an argument is a label map.

    Args:
        name: Name of the argument for the message.
        labels: The value of the argument.

    Raises:
        ValueError: The value is not an (H, W) integer numpy array.
    """
    if not isinstance(labels, np.ndarray):
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got {type(labels).__name__}")
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got shape {labels.shape}, {labels.dtype}")


def _check_same_size(gt_hw: tuple[int, ...], pred_hw: tuple[int, ...], where: object) -> None:
    if gt_hw != pred_hw:
        gt_size, pred_size = (f"{height} x {width}" for height, width in (gt_hw, pred_hw))
        problem = f"expected ground truth and prediction of one size, got {gt_size} and {pred_size}"
        raise DatasetError(problem, where=where, remedy="bring the prediction to the size of the annotated image")


def _find_run_starts(first: IntArray, second: IntArray) -> NDArray[np.int64]:
    """Indices at which a run of equal (first, second) begins; both are (n,)."""
    begins = np.ones(first.size, dtype=np.bool_)
    begins[1:] = first[1:] != first[:-1]
    begins[1:] |= second[1:] != second[:-1]
    return np.flatnonzero(begins).astype(np.int64, copy=False)


@compiled
def _merge_runs(
    gt_starts: NDArray[np.int32],
    gt_bits: NDArray[np.uint32],
    pred_starts: NDArray[np.int32],
    pred_bits: NDArray[np.uint32],
    size: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Key and length of every run of one pair, from one start to the next start in either map."""
    keys = np.empty(gt_starts.size + pred_starts.size, dtype=np.uint64)
    lengths = np.empty(keys.size, dtype=np.int32)
    number = gt_run = pred_run = start = 0
    while start < size:
        gt_end = gt_starts[gt_run + 1] if gt_run + 1 < gt_starts.size else size
        pred_end = pred_starts[pred_run + 1] if pred_run + 1 < pred_starts.size else size
        end = min(gt_end, pred_end)
        keys[number] = np.uint64(gt_bits[gt_run]) << ID_BITS | np.uint64(pred_bits[pred_run])
        lengths[number] = end - start
        number += 1
        gt_run += gt_end == end
        pred_run += pred_end == end
        start = end
    return keys[:number], lengths[:number]
