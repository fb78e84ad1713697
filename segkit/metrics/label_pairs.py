"""Overlap of two label maps: how many pixels hold each pair of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.compiled import COMPILED, compiled
from segkit.utils.errors import DatasetError

IntArray = NDArray[np.integer[Any]]
Pairs = tuple[IntArray, IntArray, NDArray[np.int64]]  # true labels, predicted labels, pixels
Table = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]  # slots: two keys, pixels (0 = free)

BLOCK_PX = 4096  # pixels that are compared, then looked through, while their flags lie in the nearest cache
WORD_PX = 8  # flags in a machine word
FIRST_SLOTS = 1024  # of the hash table, a power of two; more than most images have pairs
GROWTH = 4
MIX_FIRST, MIX_SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, of mixed bits
HALF_WORD = np.uint64(32)


def count_pairs(ground_truth: IntArray, prediction: IntArray, where: object = "") -> Pairs:
    """The distinct pairs (true label, predicted label) of two (H, W) integer maps, and their pixels.

    Returns three arrays of one length P: labels of `ground truth`, labels of `prediction` (in their own dtypes) and
    int64 pixel counts, ordered by true label, then predicted label. P is 0 for maps without pixels. Runs of equal pairs
    are counted, not pixels: maps of segments have few. Raises ValueError where a map is not an (H, W) integer array,
    DatasetError (naming `where`) where the sizes differ.
    """
    check_map("ground_truth", ground_truth)
    check_map("prediction", prediction)
    if ground_truth.shape != prediction.shape:
        raise DatasetError(
            f"expected ground truth and prediction of one size, got {_size(ground_truth)} and {_size(prediction)}",
            where=where,
            remedy="bring the prediction to the size of the annotated image",
        )
    return _count_compiled(ground_truth, prediction) if COMPILED else _count_sorted(ground_truth, prediction)


def check_map(name: str, labels: IntArray) -> None:
    """ValueError, naming the argument, where `labels` is not an (H, W) integer numpy array."""
    if not isinstance(labels, np.ndarray):
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got {type(labels).__name__}")
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got shape {labels.shape}, {labels.dtype}")


def _size(labels: IntArray) -> str:
    return f"{labels.shape[0]} x {labels.shape[1]}"


def _count_sorted(ground_truth: IntArray, prediction: IntArray) -> Pairs:
    gt_row, pred_row = ground_truth.ravel(), prediction.ravel()
    starts = _run_starts(gt_row, pred_row)
    lengths = np.diff(starts, append=gt_row.size)
    gt_row, pred_row = gt_row[starts], pred_row[starts]
    order = np.lexsort((pred_row, gt_row))
    gt_row, pred_row = gt_row[order], pred_row[order]
    starts = _run_starts(gt_row, pred_row)
    return gt_row[starts], pred_row[starts], np.add.reduceat(lengths[order], starts)


def _run_starts(first: IntArray, second: IntArray) -> NDArray[np.int64]:
    """Indices where a run of equal (first, second) begins; both (n,)."""
    begins = np.ones(first.size, dtype=np.bool_)
    begins[1:] = first[1:] != first[:-1]
    begins[1:] |= second[1:] != second[:-1]
    return np.flatnonzero(begins).astype(np.int64, copy=False)


def _count_compiled(ground_truth: IntArray, prediction: IntArray) -> Pairs:
    first_bits, second_bits, pixels = _sum_runs(_bits(ground_truth), _bits(prediction))
    used = np.flatnonzero(pixels)
    first, second = _labels(first_bits[used], ground_truth.dtype), _labels(second_bits[used], prediction.dtype)
    order = np.lexsort((second, first))
    return first[order], second[order], pixels[used[order]]


def _bits(labels: IntArray) -> NDArray[np.unsignedinteger[Any]]:
    """(n,) bit patterns: one type per width, writeable and aligned, so that few variants are compiled."""
    row = np.require(labels.ravel(), labels.dtype.newbyteorder("="), ["A", "W"])
    bits: NDArray[np.unsignedinteger[Any]] = row.view(f"u{row.dtype.itemsize}")
    return bits


def _labels(bits: NDArray[np.uint64], dtype: np.dtype[np.integer[Any]]) -> IntArray:
    native = dtype.newbyteorder("=")
    labels: IntArray = bits.astype(f"u{dtype.itemsize}").view(native).astype(dtype, copy=False)
    return labels


@compiled
def _sum_runs(first: NDArray[Any], second: NDArray[Any]) -> Table:
    """Pixels of every pair of two (n,) rows: flags where a run ends, the ends, the runs' lengths by pair."""
    flags = np.zeros(BLOCK_PX, dtype=np.uint8)
    ends = np.empty(BLOCK_PX, dtype=np.int64)
    table = _empty_table(FIRST_SLOTS)
    used = start = 0
    for begin in range(1, first.size + 1, BLOCK_PX):
        found = _ends_of(flags, _flag_changes(first, second, begin, flags), begin, ends)
        while 2 * (used + found) > table[2].size:
            table = _grown(table)
        used += _add_runs(table, first, second, start, ends[:found])
        if found:
            start = ends[found - 1]
    return table


@compiled
def _empty_table(slots: int) -> Table:
    return np.empty(slots, dtype=np.uint64), np.empty(slots, dtype=np.uint64), np.zeros(slots, dtype=np.int64)


@compiled
def _flag_changes(first: NDArray[Any], second: NDArray[Any], begin: int, flags: NDArray[np.uint8]) -> int:
    """Flags the block's pixels that differ from the one before, and the end of the rows; how many flags count."""
    length = min(BLOCK_PX, first.size - begin)
    here, before = first[begin : begin + length], first[begin - 1 : begin - 1 + length]
    here_too, before_too = second[begin : begin + length], second[begin - 1 : begin - 1 + length]
    for index in range(length):
        flags[index] = (here[index] != before[index]) | (here_too[index] != before_too[index])
    if length == BLOCK_PX:
        return length
    flags[length:] = 0
    flags[length] = 1
    return length + 1


@compiled
def _ends_of(flags: NDArray[np.uint8], length: int, begin: int, ends: NDArray[np.int64]) -> int:
    """Writes where the flags are, most words of them being empty; how many."""
    words = flags.view(np.uint64)
    found = 0
    for word in range((length + WORD_PX - 1) // WORD_PX):
        if words[word]:
            for index in range(WORD_PX * word, WORD_PX * (word + 1)):
                if flags[index]:
                    ends[found] = begin + index
                    found += 1
    return found


@compiled
def _add_runs(table: Table, first: NDArray[Any], second: NDArray[Any], start: int, ends: NDArray[np.int64]) -> int:
    """Adds the runs that begin at `start` and at each end but the last; how many pairs the table lacked."""
    keys, other_keys, totals = table
    added = 0
    for end in ends:
        key, other_key = np.uint64(first[start]), np.uint64(second[start])
        slot = _first_slot(key, other_key, totals.size)
        while totals[slot] and (keys[slot] != key or other_keys[slot] != other_key):
            slot = (slot + 1) & (totals.size - 1)
        added += totals[slot] == 0
        keys[slot], other_keys[slot] = key, other_key
        totals[slot] += end - start
        start = end
    return added


@compiled
def _first_slot(key: Any, other_key: Any, slots: int) -> Any:
    # The upper bits of a product depend on all bits of its factors: labels in any pattern are scattered.
    mixed = (key * MIX_FIRST) ^ (other_key * MIX_SECOND)
    mixed = (mixed ^ (mixed >> HALF_WORD)) * MIX_FIRST
    return np.int64(mixed >> HALF_WORD) & (slots - 1)


@compiled
def _grown(table: Table) -> Table:
    larger = _empty_table(GROWTH * table[2].size)
    for old in range(table[2].size):
        if table[2][old]:
            slot = _first_slot(table[0][old], table[1][old], larger[2].size)
            while larger[2][slot]:
                slot = (slot + 1) & (larger[2].size - 1)
            larger[0][slot], larger[1][slot], larger[2][slot] = table[0][old], table[1][old], table[2][old]
    return larger
