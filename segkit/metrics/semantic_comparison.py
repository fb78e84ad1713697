"""By how much semantic IoU of B is better than that of A on the same images, and how certain that is.

Paired bootstrap over images, from the pixels of each class in each image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics import comparison
from segkit.metrics.class_pixels import COLUMNS
from segkit.metrics.comparison import (
    FEW_IMAGES,
    FEW_OBJECTS,
    LEVEL,
    SAMPLES,
    SEED,
    IntArray,
    Resampled,
    Support,
    resample,
)
from segkit.metrics.semantic_iou import SemanticIoU
from segkit.metrics.state import FloatArray, mean_over_present
from segkit.utils.errors import DatasetError

NAMES = ("mIoU", "fwIoU", "mACC", "pACC", "mDice")
GT = COLUMNS.index("gt_px")


def compare_semantic_iou(
    a: SemanticIoU, b: SemanticIoU, *, samples: int = SAMPLES, seed: int = SEED, level: float = LEVEL
) -> dict[str, Any]:
    """Compute by how much semantic IoU of B is better.

    A class without ground truth in a resample is left out of the means, as in `SemanticIoU.compute`.

    Args:
        a: The counts of A, all with the id of their image.
        b: The counts of B, over the same images and classes.
        samples: Number of resamples, at least 1.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        mIoU, fwIoU, mACC, pACC, mDice and `per_class`: name -> {IoU, images: those with a ground truth pixel of the
        class}, all else as in `panoptic.bootstrap.compare`. In the place of objects, the classes of each image are
        counted: a class in fewer than `comparison.MIN_OBJECTS` images has the conclusion "too few images".

    Raises:
        DatasetError: The images or their ground truth pixels differ, or pixels were counted without their image.
        ValueError: `samples` is below 1, `level` is outside (0, 1), or the classes differ.
    """
    if a.names != b.names:
        raise ValueError("a and b must have the same classes, they differ")
    comparison.check_same_images(a.images.ids(), b.images.ids())
    counts_a, counts_b = _stack(a, "A"), _stack(b, "B")
    comparison.check_same_rows(_list_ground_truth(counts_a), _list_ground_truth(counts_b), a.images.ids(), "pixels")
    support = _count_support(counts_a)
    resampled = [_resample(metric, counts, samples, seed) for metric, counts in ((a, counts_a), (b, counts_b))]
    rows = comparison.build_differences(resampled[0], resampled[1], support, level)
    for row in rows:
        if row["conclusion"] == FEW_OBJECTS:  # there are no objects, but classes in images
            row["conclusion"] = FEW_IMAGES
    images = support.images.tolist()
    per_class = {
        name: {"IoU": rows[index], "images": images[index]} for index, name in enumerate(a.names, start=len(NAMES))
    }
    reason = comparison.explain_missing_intervals(images[0], int(support.objects[0]), "regions of a class")
    options = {"level": level, "samples": samples, "seed": seed, "images": len(counts_a), "reason": reason}
    return {**options, **dict(zip(NAMES, rows, strict=False)), "per_class": per_class}


def _stack(metric: SemanticIoU, name: str) -> FloatArray:
    """(I, 3, C) pixels, in the order of `COLUMNS`, of the images by id."""
    images = metric.images.in_order()
    counts = np.zeros((len(images), len(COLUMNS), len(metric.names)))
    for image, (_, table) in enumerate(images):
        for index, column in enumerate(COLUMNS):
            counts[image, index, table["label"]] = table[column]
    confusion = metric.confusion
    if (counts.sum(axis=0) != [confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)]).any():
        problem = "expected the counts of each image, got sums over images"
        raise DatasetError(problem, where=name, remedy="count every image with its image_id")
    return counts


def _list_ground_truth(counts: FloatArray) -> IntArray:
    """(N, 3) image, label and pixels of each class in the ground truth of an image."""
    image, label = np.nonzero(counts[:, GT])
    return np.stack([image, label, counts[image, GT, label].astype(np.int64)], axis=1)


def _count_support(counts: FloatArray) -> Support:
    """Images with ground truth, and classes of images, of each of `NAMES`, then of each class."""
    present = counts[:, GT] > 0
    of_class = present.sum(axis=0)
    columns = (present.any(axis=1).sum(), of_class), (of_class.sum(), of_class)
    return Support(*(np.append(np.repeat(total, len(NAMES)), each).astype(np.int64) for total, each in columns))


def _resample(metric: SemanticIoU, counts: FloatArray, samples: int, seed: int) -> Resampled:
    results = metric.compute()
    names = [*NAMES, *(f"IoU-{name}" for name in metric.names)]
    values = np.array([results[name] for name in names], dtype=np.float64)  # None becomes NaN
    if not len(counts):
        return Resampled(values, np.full((samples, len(values)), np.nan))
    return Resampled(values, resample(counts.reshape(len(counts), -1), _compute_resampled, samples, seed))


def _compute_resampled(sums: FloatArray) -> FloatArray:
    """(S, 3 C) summed pixels -> (S, 5 + C) percent: `NAMES`, and IoU of each class."""
    correct, gt, pred = sums.reshape(len(sums), len(COLUMNS), -1).swapaxes(0, 1)
    has_gt = gt > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(has_gt, correct / (gt + pred - correct), np.nan)
        dice = np.where(has_gt, 2 * correct / (gt + pred), np.nan)
        total = gt.sum(axis=1)  # 0 / 0 is NaN
        columns = [
            mean_over_present(iou),
            np.nansum(iou * gt, axis=1) / total,
            mean_over_present(correct / gt),
            correct.sum(axis=1) / total,
            mean_over_present(dice),
        ]
    metrics: NDArray[np.float64] = 100 * np.concatenate([np.stack(columns, axis=1), iou], axis=1)
    return metrics
