"""Semantic IoU and accuracy, by the definitions of Detectron2's SemSegEvaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray, count_pairs
from segkit.structures import IGNORE_LABEL, DatasetError


class SemanticIoU:
    """mIoU, fwIoU, mACC and pACC over images (detectron2/evaluation/sem_seg_evaluation.py, without boundary IoU).

    The state is `confusion`, (C, C) int64: pixels by predicted label (row) and true label (column), pixels of
    `ignore_label` left out. An instance pickles as it is.
    """

    def __init__(self, names: Sequence[str], ignore_label: int = IGNORE_LABEL) -> None:
        """names: one per label 0..C-1. Raises ValueError where there is none or `ignore_label` is one of the labels,
        DatasetError where two classes have one name (their results would have one key)."""
        self.names = tuple(names)
        self.ignore_label = ignore_label
        if not self.names:
            raise ValueError("names must hold at least one class, got none")
        if 0 <= ignore_label < len(self.names):
            raise ValueError(f"ignore_label must not be a class, 0..{len(self.names) - 1}, got {ignore_label}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DatasetError(f"expected distinct class names, got {twice} twice", remedy="rename one of them")
        self.confusion: NDArray[np.int64] = np.zeros((len(self.names), len(self.names)), dtype=np.int64)

    def update(self, truth: IntArray, prediction: IntArray) -> None:
        """Count one image: (H, W) integer labels, 0..C-1, and `ignore_label` in the truth.

        A map without pixels counts nothing. Raises DatasetError, and counts nothing, where the sizes differ or the
        truth holds another label; ValueError where the prediction does (an ignored pixel is no excuse) or a map is
        not an (H, W) integer array.
        """
        truth_labels, predicted_labels, pixels = count_pairs(truth, prediction)
        classes = len(self.names)
        strange = truth_labels[(truth_labels < 0) | (truth_labels >= classes)]
        strange = strange[strange != self.ignore_label]
        if strange.size:
            raise DatasetError(
                f"expected truth labels 0..{classes - 1} or {self.ignore_label} (ignored), got {int(strange[0])}",
                remedy="map the label to a class or to the ignored label",
            )
        strange = predicted_labels[(predicted_labels < 0) | (predicted_labels >= classes)]
        if strange.size:
            raise ValueError(f"prediction must hold labels 0..{classes - 1}, got {int(strange[0])}")
        scored = truth_labels != self.ignore_label
        self.confusion[predicted_labels[scored], truth_labels[scored]] += pixels[scored]

    def merge(self, other: SemanticIoU) -> None:
        """Add another shard's pixels; ValueError where its names or its ignored label differ."""
        if (self.names, self.ignore_label) != (other.names, other.ignore_label):
            raise ValueError("other must have the same names and ignore_label as this SemanticIoU, they differ")
        self.confusion += other.confusion

    def compute(self) -> dict[str, float | None]:
        """mIoU, fwIoU, mACC, pACC and `IoU-<name>`, `ACC-<name>` per class, in percent (float64).

        A class that the truth never holds has None and is left out of the means, also where it was predicted.
        Without any scored pixel all are None.
        """
        correct = self.confusion.diagonal().astype(np.float64)
        true_px = self.confusion.sum(axis=0).astype(np.float64)
        predicted_px = self.confusion.sum(axis=1).astype(np.float64)
        seen = true_px > 0
        iou = np.full(len(self.names), np.nan)
        acc = np.full(len(self.names), np.nan)
        iou[seen] = correct[seen] / (true_px + predicted_px - correct)[seen]
        acc[seen] = correct[seen] / true_px[seen]
        results: dict[str, float | None] = {"mIoU": None, "fwIoU": None}
        results.update({f"IoU-{name}": _percent(value) for name, value in zip(self.names, iou.tolist(), strict=True)})
        results.update({"mACC": None, "pACC": None})
        results.update({f"ACC-{name}": _percent(value) for name, value in zip(self.names, acc.tolist(), strict=True)})
        if seen.any():
            results["mIoU"] = _percent(np.sum(iou[seen]) / np.sum(seen))
            results["fwIoU"] = _percent(np.sum(iou[seen] * (true_px / np.sum(true_px))[seen]))
            results["mACC"] = _percent(np.sum(acc[seen]) / np.sum(seen))
            results["pACC"] = _percent(np.sum(correct) / np.sum(true_px))
        return results


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else float(100 * value)
