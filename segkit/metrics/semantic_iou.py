"""Semantic IoU, accuracy, Dice and boundary IoU; the first two by the definitions of Detectron2's SemSegEvaluator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.boundary import DILATION_RATIO, boundary_dilation_px, boundary_pixels
from segkit.metrics.label_pairs import IntArray, count_pairs
from segkit.structures import IGNORE_LABEL
from segkit.utils.errors import DatasetError

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


class SemanticIoU:
    """mIoU, fwIoU, mACC and pACC over images (detectron2/evaluation/sem_seg_evaluation.py), Dice and boundary IoU.

    The state, whose size no image changes: `confusion`, (C, C) int64: pixels by predicted label (row) and true label
    (column), pixels of `ignore_label` left out; `boundary_px`, (2, C) int64: per class, the pixels that lie on the
    boundary of both its true and its predicted mask, and those on either. An instance pickles as it is.

    Boundary IoU (Cheng et al. 2021, equation 1) is that of each class's mask in each image, the two counts added up
    over images. Ignored pixels are taken out of both masks before their boundaries are found, so that a prediction
    that runs on over them is not wrong there. Detectron2's differs: it erodes label values as if they were brightness,
    which is no boundary but for two classes.
    """

    def __init__(
        self,
        names: Sequence[str],
        ignore_label: int = IGNORE_LABEL,
        *,
        boundary: bool = False,
        boundary_ratio: float = DILATION_RATIO,
    ) -> None:
        """names: one per label 0..C-1. boundary: count boundary IoU too, within `boundary_ratio` of the diagonal.

        Raises ValueError where there is no name, `ignore_label` is one of the labels or the ratio is not positive and
        finite, DatasetError where two classes have one name (their results would have one key).
        """
        self.names = tuple(names)
        self.ignore_label = ignore_label
        self.boundary_ratio = boundary_ratio if boundary else None
        if not self.names:
            raise ValueError("names must hold at least one class, got none")
        if 0 <= ignore_label < len(self.names):
            raise ValueError(f"ignore_label must not be a class, 0..{len(self.names) - 1}, got {ignore_label}")
        if not 0 < boundary_ratio < math.inf:
            raise ValueError(f"boundary_ratio must be positive and finite, got {boundary_ratio}")
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise DatasetError(f"expected distinct class names, got {twice} twice", remedy="rename one of them")
        self.confusion: Counts = np.zeros((len(self.names), len(self.names)), dtype=np.int64)
        self.boundary_px: Counts = np.zeros((2, len(self.names)), dtype=np.int64)

    def update(self, ground_truth: IntArray, prediction: IntArray, where: object = "") -> None:
        """Count one image: (H, W) integer labels, 0..C-1, and `ignore_label` in the ground truth.

        A map without pixels counts nothing. Raises DatasetError naming `where`, and counts nothing, where the sizes
        differ or the ground truth holds another label; ValueError where the prediction does (an ignored pixel is no
        excuse) or a map is not an (H, W) integer array.
        """
        gt_labels, pred_labels, pixels = count_pairs(ground_truth, prediction, where)
        classes = len(self.names)
        scored = gt_labels != self.ignore_label
        strange = gt_labels[scored & ((gt_labels < 0) | (gt_labels >= classes))]
        if strange.size:
            raise DatasetError(
                f"expected ground truth labels 0..{classes - 1} or {self.ignore_label} (ignored), "
                f"got {int(strange[0])}",
                where=where,
                remedy="map the label to a class or to the ignored label",
            )
        strange = pred_labels[(pred_labels < 0) | (pred_labels >= classes)]
        if strange.size:
            raise ValueError(f"prediction must hold labels 0..{classes - 1}, got {int(strange[0])}")
        self.confusion[pred_labels[scored], gt_labels[scored]] += pixels[scored]
        if self.boundary_ratio is not None:
            self.boundary_px += _boundary_counts(
                ground_truth, prediction, classes, self.ignore_label, self.boundary_ratio
            )

    def add_confusion(self, confusion: IntArray, boundary_px: IntArray | None = None) -> None:
        """Add pixels that were counted elsewhere, on a GPU say: arrays as `confusion` and `boundary_px` of this class.

        Raises ValueError where one is not of this shape and not of integers, 0 or more, or where `boundary_px` lacks
        and boundaries are counted, or the other way round.
        """
        if (boundary_px is None) != (self.boundary_ratio is None):
            raise ValueError("boundary_px must be given where boundaries are counted, and only there")
        _check_counts("confusion", confusion, self.confusion.shape)
        if boundary_px is not None:
            _check_counts("boundary_px", boundary_px, self.boundary_px.shape)
            self.boundary_px += boundary_px.astype(np.int64)
        self.confusion += confusion.astype(np.int64)

    def merge(self, other: SemanticIoU) -> None:
        """Add another shard's pixels; ValueError where its names, its ignored label or its boundaries differ."""
        if (self.names, self._options()) != (other.names, other._options()):
            rule = "the same names and ignore_label, and the same boundaries"
            raise ValueError(f"other must have {rule}, as this SemanticIoU, they differ")
        self.confusion += other.confusion
        self.boundary_px += other.boundary_px

    def compute(self) -> dict[str, float | None]:
        """mIoU, fwIoU, mACC, pACC, mDice and `IoU-<name>`, `ACC-<name>`, `Dice-<name>` per class, in percent (float64).

        With boundaries also mBoundaryIoU, `BoundaryIoU-<name>` and the smaller of both IoUs as Detectron2 names it,
        `min(IoU, B-Iou)-<name>`. A class that the ground truth never holds has None in all of them and is left out of
        the means, also where it was predicted. Without any scored pixel all are None. Dice = 2 TP / (2 TP + FP + FN).
        """
        correct = self.confusion.diagonal().astype(np.float64)
        gt_px = self.confusion.sum(axis=0).astype(np.float64)
        pred_px = self.confusion.sum(axis=1).astype(np.float64)
        seen = gt_px > 0
        iou = _ratios(correct, gt_px + pred_px - correct, seen)
        acc = _ratios(correct, gt_px, seen)
        dice = _ratios(2 * correct, gt_px + pred_px, seen)
        total = gt_px.sum()
        results = {"mIoU": _mean(iou), "fwIoU": None, **self._per_class("IoU", iou)}
        if self.boundary_ratio is not None:
            shared, either = self.boundary_px.astype(np.float64)
            boundary = _ratios(shared, either, seen & (either > 0))
            results = {**results, "mBoundaryIoU": _mean(boundary), **self._per_class("BoundaryIoU", boundary)}
            results.update(self._per_class("min(IoU, B-Iou)", np.minimum(iou, boundary)))
        results.update({"mACC": _mean(acc), "pACC": None, **self._per_class("ACC", acc)})
        results.update({"mDice": _mean(dice), **self._per_class("Dice", dice)})
        if seen.any():
            results["fwIoU"] = _percent(np.sum(iou[seen] * (gt_px / total)[seen]))
            results["pACC"] = _percent(np.sum(correct) / total)
        return results

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(header for JSON, arrays of integers): what `from_state` makes the same metric of."""
        arrays = {"confusion": self.confusion.copy(), "boundary_px": self.boundary_px.copy()}
        return {"names": [*self.names], "options": self._options()}, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SemanticIoU:
        """The metric that `state` described; DatasetError where this is no such state."""
        try:
            metric = cls(header["names"], **header["options"])
            boundary_px = arrays["boundary_px"]
            _check_counts("boundary_px", boundary_px, metric.boundary_px.shape)
            metric.add_confusion(arrays["confusion"], None if metric.boundary_ratio is None else boundary_px)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"expected saved counts of semantic IoU, got others ({error})") from error
        return metric

    def _options(self) -> dict[str, Any]:
        ratio = self.boundary_ratio
        boundary = {"boundary": ratio is not None, **({} if ratio is None else {"boundary_ratio": ratio})}
        return {"ignore_label": self.ignore_label, **boundary}

    def _per_class(self, prefix: str, values: Values) -> dict[str, float | None]:
        return {f"{prefix}-{name}": _percent(value) for name, value in zip(self.names, values.tolist(), strict=True)}


def _boundary_counts(
    ground_truth: IntArray, prediction: IntArray, classes: int, ignore_label: int, ratio: float
) -> Counts:
    """(2, C): pixels on both boundaries of a class, and on either; labels are 0..C-1, ignored only in the ground
    truth."""
    dilation_px = boundary_dilation_px((ground_truth.shape[0], ground_truth.shape[1]), ratio)
    dtype = np.min_scalar_type(classes)
    scored = np.subtract(
        ground_truth != ignore_label, 1, dtype=dtype
    )  # 0, or where ignored all bits: a label of no class
    on_boundary = []
    for labels in (ground_truth, prediction):
        small = labels.astype(dtype)
        small |= scored
        small |= np.subtract(boundary_pixels(small, dilation_px), 1, dtype=dtype)
        on_boundary.append(small)
    gt_labels, pred_labels, pixels = count_pairs(on_boundary[0], on_boundary[1])
    gt_labels, pred_labels = np.minimum(gt_labels, classes), np.minimum(pred_labels, classes)
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(table, (gt_labels, pred_labels), pixels)
    shared = table.diagonal()
    either = table.sum(axis=0) + table.sum(axis=1) - shared
    return np.stack([shared[:classes], either[:classes]])


def _check_counts(name: str, counts: IntArray, shape: tuple[int, ...]) -> None:
    if not isinstance(counts, np.ndarray) or counts.shape != shape or counts.dtype.kind not in "iu":
        got = f"{counts.shape} {counts.dtype}" if isinstance(counts, np.ndarray) else type(counts).__name__
        raise ValueError(f"{name} must be a numpy array of {shape} integers, got {got}")
    if (counts < 0).any():
        raise ValueError(f"{name} must hold numbers of pixels, 0 or more, got {int(counts.min())}")


def _ratios(parts: Values, wholes: Values, where: NDArray[np.bool_]) -> Values:
    """parts / wholes, NaN elsewhere."""
    ratios: Values = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=where)
    return ratios


def _mean(values: Values) -> float | None:
    defined = ~np.isnan(values)
    return _percent(np.sum(values[defined]) / np.sum(defined)) if defined.any() else None


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else float(100 * value)
