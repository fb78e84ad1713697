"""Overlap of two maps of segment ids given as runs: as `count_pairs`, without looking at pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import Pairs
from segkit.structures import IdRuns
from segkit.structures.id_runs import sum_by_key
from segkit.utils.compiled import COMPILED, compiled
from segkit.utils.errors import DatasetError

ID_BITS, LOW_BITS = np.uint64(32), np.uint64(0xFFFFFFFF)  # of a key: the true id above, the predicted one below
SIGN = np.uint32(0x80000000)  # flipped, unsigned keys are in the order of signed ids


def count_run_pairs(ground_truth: IdRuns, prediction: IdRuns, where: object = "") -> Pairs:
    """The distinct pairs (true id, predicted id) of two maps, and their pixels, as `count_pairs` returns them.

    Raises DatasetError (naming `where`) where the sizes differ.
    """
    if ground_truth.size_hw != prediction.size_hw:
        sizes = [f"{height} x {width}" for height, width in (ground_truth.size_hw, prediction.size_hw)]
        raise DatasetError(
            f"expected ground truth and prediction of one size, got {sizes[0]} and {sizes[1]}",
            where=where,
            remedy="bring the prediction to the size of the annotated image",
        )
    size = ground_truth.size_hw[0] * ground_truth.size_hw[1]
    gt_bits, pred_bits = (runs.ids.view(np.uint32) ^ SIGN for runs in (ground_truth, prediction))
    if COMPILED:
        keys, lengths = _merged(ground_truth.starts, gt_bits, prediction.starts, pred_bits, size)
    else:
        starts = np.union1d(ground_truth.starts, prediction.starts)
        first = gt_bits[np.searchsorted(ground_truth.starts, starts, "right") - 1].astype(np.uint64)
        second = pred_bits[np.searchsorted(prediction.starts, starts, "right") - 1].astype(np.uint64)
        keys, lengths = first << ID_BITS | second, np.diff(starts, append=np.int32(size))
    keys, pixels = sum_by_key(keys, lengths)
    bits = (keys >> ID_BITS).astype(np.uint32), (keys & LOW_BITS).astype(np.uint32)
    return (bits[0] ^ SIGN).view(np.int32), (bits[1] ^ SIGN).view(np.int32), pixels


@compiled
def _merged(
    gt_starts: NDArray[np.int32],
    gt_bits: NDArray[np.uint32],
    pred_starts: NDArray[np.int32],
    pred_bits: NDArray[np.uint32],
    size: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Key and length of every run of one pair, from one start to the next of either map."""
    keys = np.empty(gt_starts.size + pred_starts.size, dtype=np.uint64)
    lengths = np.empty(keys.size, dtype=np.int32)
    number = ground_truth = prediction = start = 0
    while start < size:
        gt_end = gt_starts[ground_truth + 1] if ground_truth + 1 < gt_starts.size else size
        pred_end = pred_starts[prediction + 1] if prediction + 1 < pred_starts.size else size
        end = min(gt_end, pred_end)
        keys[number] = np.uint64(gt_bits[ground_truth]) << ID_BITS | np.uint64(pred_bits[prediction])
        lengths[number] = end - start
        number += 1
        ground_truth += gt_end == end
        prediction += pred_end == end
        start = end
    return keys[:number], lengths[:number]
