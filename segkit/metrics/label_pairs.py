"""Overlap of two label maps: how many pixels hold each pair of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures import DatasetError

IntArray = NDArray[np.integer[Any]]
Pairs = tuple[IntArray, IntArray, NDArray[np.int64]]  # true labels, predicted labels, pixels


def count_pairs(
    truth: IntArray, prediction: IntArray, where: object = ""
) -> tuple[IntArray, IntArray, NDArray[np.int64]]:
    """The distinct pairs (true label, predicted label) of two (H, W) integer maps, and their pixels.

    Returns three arrays of one length P: labels of `truth`, labels of `prediction` (in their own dtypes) and int64
    pixel counts, ordered by true label, then predicted label. P is 0 for maps without pixels. Runs of equal pairs
    are counted, not pixels: maps of segments have few. Raises ValueError where a map is not an (H, W) integer array,
    DatasetError (naming `where`) where the sizes differ.
    """
    _check_map("truth", truth)
    _check_map("prediction", prediction)
    if truth.shape != prediction.shape:
        raise DatasetError(
            f"expected truth and prediction of one size, got {_size(truth)} and {_size(prediction)}",
            where=where,
            remedy="bring the prediction to the size of the annotated image",
        )
    truth_row, predicted_row = truth.ravel(), prediction.ravel()
    starts = _run_starts(truth_row, predicted_row)
    lengths = np.diff(starts, append=truth_row.size)
    truth_row, predicted_row = truth_row[starts], predicted_row[starts]
    order = np.lexsort((predicted_row, truth_row))
    truth_row, predicted_row = truth_row[order], predicted_row[order]
    starts = _run_starts(truth_row, predicted_row)
    return truth_row[starts], predicted_row[starts], np.add.reduceat(lengths[order], starts)


def _check_map(name: str, labels: IntArray) -> None:
    if not isinstance(labels, np.ndarray):
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got {type(labels).__name__}")
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be an (H, W) integer numpy array, got shape {labels.shape}, {labels.dtype}")


def _size(labels: IntArray) -> str:
    return f"{labels.shape[0]} x {labels.shape[1]}"


def _run_starts(first: IntArray, second: IntArray) -> NDArray[np.int64]:
    """Indices where a run of equal (first, second) begins; both (n,)."""
    begins = np.ones(first.size, dtype=np.bool_)
    begins[1:] = first[1:] != first[:-1]
    begins[1:] |= second[1:] != second[:-1]
    return np.flatnonzero(begins).astype(np.int64, copy=False)
