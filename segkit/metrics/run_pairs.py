"""Overlap of two maps of segment ids given as runs: as `count_pairs`, without looking at pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import Pairs
from segkit.structures import DatasetError, IdRuns
from segkit.structures.compiled import COMPILED, compiled

ID_BITS, LOW_BITS = np.uint64(32), np.uint64(0xFFFFFFFF)  # of a key: the true id above, the predicted one below
SIGN = np.uint32(0x80000000)  # flipped, unsigned keys are in the order of signed ids
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, of mixed bits: the upper half of a product depends on all bits of a key


def count_run_pairs(truth: IdRuns, prediction: IdRuns, where: object = "") -> Pairs:
    """The distinct pairs (true id, predicted id) of two maps, and their pixels, as `count_pairs` returns them.

    Raises DatasetError (naming `where`) where the sizes differ.
    """
    if truth.size_hw != prediction.size_hw:
        sizes = [f"{height} x {width}" for height, width in (truth.size_hw, prediction.size_hw)]
        raise DatasetError(
            f"expected truth and prediction of one size, got {sizes[0]} and {sizes[1]}",
            where=where,
            remedy="bring the prediction to the size of the annotated image",
        )
    size = truth.size_hw[0] * truth.size_hw[1]
    true_bits, predicted_bits = (runs.ids.view(np.uint32) ^ SIGN for runs in (truth, prediction))
    if COMPILED:
        keys, lengths = _merged(truth.starts, true_bits, prediction.starts, predicted_bits, size)
        keys, pixels = _sum_by_key(keys, lengths, 1 << int(2 * len(keys)).bit_length())
        keys, pixels = keys[pixels > 0], pixels[pixels > 0]
    else:
        starts = np.union1d(truth.starts, prediction.starts)
        first = true_bits[np.searchsorted(truth.starts, starts, "right") - 1].astype(np.uint64)
        second = predicted_bits[np.searchsorted(prediction.starts, starts, "right") - 1].astype(np.uint64)
        keys, places = np.unique(first << ID_BITS | second, return_inverse=True)
        pixels = np.zeros(len(keys), dtype=np.int64)
        np.add.at(pixels, places, np.diff(starts, append=size))
    order = np.argsort(keys)
    bits = (keys[order] >> ID_BITS).astype(np.uint32), (keys[order] & LOW_BITS).astype(np.uint32)
    return (bits[0] ^ SIGN).view(np.int32), (bits[1] ^ SIGN).view(np.int32), pixels[order]


@compiled
def _merged(
    true_starts: NDArray[np.int32],
    true_bits: NDArray[np.uint32],
    predicted_starts: NDArray[np.int32],
    predicted_bits: NDArray[np.uint32],
    size: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Key and length of every run of one pair, from one start to the next of either map."""
    keys = np.empty(true_starts.size + predicted_starts.size, dtype=np.uint64)
    lengths = np.empty(keys.size, dtype=np.int32)
    number = truth = prediction = start = 0
    while start < size:
        true_end = true_starts[truth + 1] if truth + 1 < true_starts.size else size
        predicted_end = predicted_starts[prediction + 1] if prediction + 1 < predicted_starts.size else size
        end = min(true_end, predicted_end)
        keys[number] = np.uint64(true_bits[truth]) << ID_BITS | np.uint64(predicted_bits[prediction])
        lengths[number] = end - start
        number += 1
        truth += true_end == end
        prediction += predicted_end == end
        start = end
    return keys[:number], lengths[:number]


@compiled
def _sum_by_key(
    keys: NDArray[np.uint64], lengths: NDArray[np.int32], slots: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash table of `slots`, a power of two above the number of keys: key and sum of its lengths, 0 where free."""
    table, totals = np.zeros(slots, dtype=np.uint64), np.zeros(slots, dtype=np.int64)
    for index in range(keys.size):
        key = keys[index]
        slot = np.int64(key * MIX >> ID_BITS) & (slots - 1)
        while totals[slot] and table[slot] != key:
            slot = (slot + 1) & (slots - 1)
        table[slot] = key
        totals[slot] += lengths[index]
    return table, totals
