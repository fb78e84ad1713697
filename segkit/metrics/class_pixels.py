"""How many pixels of each class an image has: a small table, from which semantic IoU of any images can be computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray
from segkit.metrics.state import Table

# A class in an image: its pixels in both maps, in the ground truth, in the prediction; without ignored pixels.
CLASS_PIXELS = np.dtype([("label", "<i4"), ("correct_px", "<i8"), ("gt_px", "<i8"), ("pred_px", "<i8")])
COLUMNS = ("correct_px", "gt_px", "pred_px")
NO_PIXELS: Table = np.zeros(0, CLASS_PIXELS)


def count_class_pixels(gt_labels: IntArray, pred_labels: IntArray, pixels: IntArray, classes: int) -> Table:
    """Count the pixels of each class in an image.

    Args:
        gt_labels: (P,) ground truth labels of distinct pairs of labels, 0..C-1.
        pred_labels: (P,) their predicted labels, 0..C-1.
        pixels: (P,) their pixels.
        classes: C.

    Returns:
        (K,) `CLASS_PIXELS`, by label, of the K classes that a pixel of either map has.
    """
    same = gt_labels == pred_labels
    counts: list[NDArray[Any]] = [  # float64, which is exact up to 2**53
        np.bincount(labels, weights=weights, minlength=classes)
        for labels, weights in ((gt_labels[same], pixels[same]), (gt_labels, pixels), (pred_labels, pixels))
    ]
    labels = np.flatnonzero(counts[1] + counts[2])
    table = np.zeros(len(labels), CLASS_PIXELS)
    table["label"] = labels
    for name, column in zip(COLUMNS, counts, strict=True):
        table[name] = column[labels]
    return table


def check_class_pixels(table: Table, rows: int, classes: int) -> None:
    """Check rows of `CLASS_PIXELS` that were read from a file.

    Args:
        table: The rows.
        rows: Their expected number.
        classes: The number of classes.

    Raises:
        ValueError: The dtype or the number of rows is another, or a label or a number of pixels is out of range.
    """
    if table.dtype != CLASS_PIXELS or table.shape != (rows,):
        raise ValueError(f"classes must be {rows} rows of {CLASS_PIXELS}, got {table.shape} {table.dtype}")
    labels, correct_px, gt_px, pred_px = (table[name] for name in ("label", *COLUMNS))
    if (labels < 0).any() or (labels >= classes).any() or (correct_px < 0).any():
        raise ValueError("classes has labels or pixels out of range")
    if (correct_px > gt_px).any() or (correct_px > pred_px).any():
        raise ValueError("classes has more correct pixels than pixels")
