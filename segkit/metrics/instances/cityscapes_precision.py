"""From counted pixels to the average precision of Cityscapes: matching, precision, recall, by cityscapesscripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# evalInstanceLevelSemanticLabeling.py: args.overlaps, and args.minRegionSizes[0], which counts without distances.
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
SMALLEST_TRUTH_PX = 100
# A true id is label id * 1000 + instance, or the bare label id; of a thing, that is a group (instance.py).
FIRST_INSTANCE_ID = 1000

GROUND_TRUTH = np.dtype([("instance_id", "i4"), ("pixels", "i8")])
PREDICTION = np.dtype([("category_id", "i4"), ("score", "f8"), ("pixels", "i8"), ("void_px", "i8")])
SHARED = np.dtype([("ground_truth", "i4"), ("prediction", "i4"), ("pixels", "i8")])
DTYPES = {"ground_truth": GROUND_TRUTH, "prediction": PREDICTION, "shared": SHARED}

Table = NDArray[np.void]
FloatArray = NDArray[np.float64]


class Tables(NamedTuple):
    """What is known of one image, or of many joined.

    ground truth: (G,) `TRUTH`, every instance and group of a thing. prediction: (P,) `PREDICTION`. shared: (S,)
    `SHARED`, the pixels common to two of one label, where there are any; its first two columns are rows of the other
    tables.
    """

    ground_truth: Table
    prediction: Table
    shared: Table


def label_ids(instance_ids: NDArray[Any]) -> NDArray[Any]:
    """The label of every id."""
    return np.where(instance_ids < FIRST_INSTANCE_ID, instance_ids, instance_ids // FIRST_INSTANCE_ID)


def join(images: Sequence[Tables]) -> Tables:
    """One table of each kind over all images."""
    moved = []
    first = {"ground_truth": 0, "prediction": 0}
    for tables in images:
        shared = tables.shared.copy()
        for name in first:
            shared[name] += first[name]
            first[name] += len(getattr(tables, name))
        moved.append(tables._replace(shared=shared))
    nothing = Tables(*(np.zeros(0, dtype) for dtype in DTYPES.values()))
    return Tables(*(np.concatenate(parts) for parts in zip(nothing, *moved, strict=True)))


def average_precisions(tables: Tables, category_id: int) -> FloatArray:
    """(10,) AP in [0, 1] at each of `THRESHOLDS`; NaN where no instance of the label counts as true."""
    ground_truth, prediction, shared = tables
    of_label = label_ids(ground_truth["instance_id"]) == category_id
    true = of_label & (ground_truth["instance_id"] >= FIRST_INSTANCE_ID) & (ground_truth["pixels"] >= SMALLEST_TRUTH_PX)
    predicted = prediction["category_id"] == category_id
    if not true.any() or not predicted.any():
        return np.full(len(THRESHOLDS), 0.0 if true.any() else np.nan)
    shared = shared[predicted[shared["prediction"]]]
    shared = shared[np.lexsort((prediction["score"][shared["prediction"]], shared["ground_truth"]))]
    owners, finders = shared["ground_truth"], shared["prediction"]
    iou = shared["pixels"] / (ground_truth["pixels"][owners] + prediction["pixels"][finders] - shared["pixels"])
    hidden = _hidden_shares(tables)
    precisions = []
    for threshold in THRESHOLDS:
        hit = iou > threshold
        false = predicted & (hidden <= threshold)
        false[finders[hit]] = False
        hit &= true[owners]
        # By instance, then score: the last finder of each is its best, the others are false.
        best = np.append(owners[hit][1:] != owners[hit][:-1], True)[: np.count_nonzero(hit)]
        scores = prediction["score"][np.concatenate([finders[hit], np.flatnonzero(false)])]
        is_true = np.zeros(len(scores))
        is_true[: len(best)] = best
        precisions.append(_area_under_curve(scores, is_true, np.count_nonzero(true) - np.count_nonzero(best)))
    return np.array(precisions)


def _hidden_shares(tables: Tables) -> FloatArray:
    """(P,) the share of each prediction on void, groups and small instances of its label; a small group counts twice,
    as a group and as small."""
    ground_truth, prediction, shared = tables
    times = (ground_truth["instance_id"] < FIRST_INSTANCE_ID).astype(np.int64) + (
        ground_truth["pixels"] < SMALLEST_TRUTH_PX
    )
    weights = shared["pixels"] * times[shared["ground_truth"]]
    hidden_px = prediction["void_px"] + np.bincount(shared["prediction"], weights, len(prediction))
    shares: FloatArray = hidden_px / prediction["pixels"]
    return shares


def _area_under_curve(scores: FloatArray, is_true: FloatArray, missed: int) -> float:
    """The step-wise integral of precision over recall; 0 without scores, where the reference fails.

    scores, is_true: (N,), 1 where a prediction found an instance, 0 where it is false. missed: instances without one.
    Precision and recall are taken at every distinct score, so that the order of equal scores plays no part.
    """
    order = np.argsort(scores)
    first = np.unique(scores[order], return_index=True)[1]
    below = np.append(0.0, np.cumsum(is_true[order]))
    hits = below[-1] - below[first]
    precision = np.append(hits / (len(scores) - first), 1.0)
    recall = np.append(hits / (below[-1] + missed), 0.0)
    # The same calls as the reference's: another way of adding would move the last bits.
    steps = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0, 0.5], "valid")
    return float(np.dot(precision, steps))
