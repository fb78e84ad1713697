"""Semantic IoU, accuracy, Dice and boundary IoU; the first two as Detectron2's SemSegEvaluator defines them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.boundary import DILATION_RATIO, boundary_dilation_px, boundary_options, boundary_pixels
from segkit.metrics.class_pixels import NO_PIXELS, check_class_pixels, count_class_pixels
from segkit.metrics.label_pairs import IntArray, count_pairs
from segkit.metrics.state import FloatArray, PerImage, Table, check_distinct_names, percent, reading_saved_counts
from segkit.structures import IGNORE_LABEL, ImageId
from segkit.utils.errors import DatasetError

PixelCounts = NDArray[np.int64]


class SemanticIoU:
    """mIoU, fwIoU, mACC and pACC over images (detectron2/evaluation/sem_seg_evaluation.py), Dice and boundary IoU.

    The state does not grow with the images: `confusion`, (C, C) int64: pixels by predicted label (row) and ground truth
    label (column), without pixels of `ignore_label`; `boundary_px`, (2, C) int64: per class the pixels on the boundary
    of both its ground truth and its predicted mask, and the pixels on either. Only of images that are given with their
    id, `images` also keeps a table of `CLASS_PIXELS`. An instance can be pickled.

    Boundary IoU (Cheng et al. 2021, equation 1) is that of each class's mask in each image, with both counts added over
    images. Ignored pixels are taken out of both masks before their boundaries are found, so that a prediction that
    continues over them is not wrong there. Detectron2's differs: it erodes label values as if they were brightness,
    which gives boundaries for two classes only.
    """

    def __init__(
        self,
        names: Sequence[str],
        ignore_label: int = IGNORE_LABEL,
        *,
        boundary: bool = False,
        boundary_ratio: float = DILATION_RATIO,
    ) -> None:
        """Start without images.

        Args:
            names: C names, one per label 0..C-1.
            ignore_label: The ground truth label of pixels that are not scored; no class.
            boundary: Count boundary IoU too.
            boundary_ratio: Width of the boundaries as a share of the image's diagonal, above 0.

        Raises:
            ValueError: There are no names, `ignore_label` is a class, or the ratio is not positive and finite.
            DatasetError: Two classes have one name: their results would have one key.
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
        check_distinct_names(self.names, "classes")
        self.confusion: PixelCounts = np.zeros((len(self.names), len(self.names)), dtype=np.int64)
        self.boundary_px: PixelCounts = np.zeros((2, len(self.names)), dtype=np.int64)
        self.images: PerImage[Table] = PerImage()

    def update(
        self, ground_truth: IntArray, prediction: IntArray, where: object = "", image_id: ImageId | None = None
    ) -> None:
        """Count one image; a map without pixels counts nothing.

        Args:
            ground_truth: (H, W) integer labels, 0..C-1 and `ignore_label`.
            prediction: (H, W) integer labels, 0..C-1, also at ignored pixels.
            where: Place for error messages.
            image_id: Keeps the counts of the image, which `compare_semantic_iou` needs; None keeps the sums alone.

        Raises:
            DatasetError: The sizes differ, the ground truth has another label, or the image was added before. Nothing
                is counted then.
            ValueError: The prediction has another label, or a map is not an (H, W) integer array. Nothing is counted.
        """
        gt_labels, pred_labels, pixels = count_pairs(ground_truth, prediction, where)
        classes = len(self.names)
        scored = gt_labels != self.ignore_label
        invalid = gt_labels[scored & ((gt_labels < 0) | (gt_labels >= classes))]
        if invalid.size:
            expected = f"0..{classes - 1} or {self.ignore_label} (ignored)"
            problem = f"expected ground truth labels {expected}, got {int(invalid[0])}"
            raise DatasetError(problem, where=where, remedy="map the label to a class or to the ignored label")
        invalid = pred_labels[(pred_labels < 0) | (pred_labels >= classes)]
        if invalid.size:
            raise ValueError(f"prediction must hold labels 0..{classes - 1}, got {int(invalid[0])}")
        gt_labels, pred_labels, pixels = gt_labels[scored], pred_labels[scored], pixels[scored]
        if image_id is not None:
            self.images.add(image_id, count_class_pixels(gt_labels, pred_labels, pixels, classes))
        self.confusion[pred_labels, gt_labels] += pixels
        if self.boundary_ratio is not None:
            self.boundary_px += self._count_boundaries(ground_truth, prediction, self.boundary_ratio)

    def add_confusion(
        self, confusion: IntArray, boundary_px: IntArray | None = None, image_id: ImageId | None = None
    ) -> None:
        """Add pixels that were counted elsewhere, for example on a GPU.

        Args:
            confusion: (C, C) integers, as `confusion` of this class.
            boundary_px: (2, C) integers, as `boundary_px` of this class; None if boundaries are not counted.
            image_id: As in `update`, if these are the pixels of one image.

        Raises:
            DatasetError: The image was added before. Nothing is added then.
            ValueError: An array has another shape or dtype or a negative value, or `boundary_px` is missing or not
                expected.
        """
        if (boundary_px is None) != (self.boundary_ratio is None):
            raise ValueError("boundary_px must be given if boundaries are counted, and only then")
        _check_counts("confusion", confusion, self.confusion.shape)
        if boundary_px is not None:
            _check_counts("boundary_px", boundary_px, self.boundary_px.shape)
        if image_id is not None:
            pred_labels, gt_labels = np.nonzero(confusion)
            pixels = confusion[pred_labels, gt_labels]
            self.images.add(image_id, count_class_pixels(gt_labels, pred_labels, pixels, len(self.names)))
        if boundary_px is not None:
            self.boundary_px += boundary_px.astype(np.int64)
        self.confusion += confusion.astype(np.int64)

    def merge(self, other: SemanticIoU) -> None:
        """Add another shard's pixels.

        Args:
            other: A metric with the same names, ignored label and boundaries.

        Raises:
            DatasetError: Both keep the counts of an image. Nothing is added then.
            ValueError: The names, the ignored label or the boundaries differ.
        """
        if (self.names, self._options()) != (other.names, other._options()):
            same = "the same names, ignore_label and boundaries"
            raise ValueError(f"other must have {same} as this SemanticIoU, they differ")
        self.images.merge(other.images)
        self.confusion += other.confusion
        self.boundary_px += other.boundary_px

    def compute(self) -> dict[str, float | None]:
        """Compute the metrics over all images.

        Returns:
            mIoU, fwIoU, mACC, pACC, mDice and `IoU-<name>`, `ACC-<name>`, `Dice-<name>` per class, in percent
            (float64). With boundaries also mBoundaryIoU, `BoundaryIoU-<name>` and, as Detectron2 names the smaller of
            both IoUs, `min(IoU, B-Iou)-<name>`. Dice = 2 TP / (2 TP + FP + FN).
            A class without ground truth has None and is left out of the means, also if it was predicted. All are None
            without any scored pixel, and if there is only one class, which every prediction has right.
        """
        correct = self.confusion.diagonal().astype(np.float64)
        gt_px = self.confusion.sum(axis=0).astype(np.float64)
        pred_px = self.confusion.sum(axis=1).astype(np.float64)
        has_gt = (gt_px > 0) & (len(self.names) > 1)
        iou = _divide(correct, gt_px + pred_px - correct, has_gt)
        acc = _divide(correct, gt_px, has_gt)
        dice = _divide(2 * correct, gt_px + pred_px, has_gt)
        total = gt_px.sum()
        results = {"mIoU": _mean(iou), "fwIoU": None, **self._per_class("IoU", iou)}
        if self.boundary_ratio is not None:
            shared, either = self.boundary_px.astype(np.float64)
            boundary = _divide(shared, either, has_gt & (either > 0))
            results |= {"mBoundaryIoU": _mean(boundary), **self._per_class("BoundaryIoU", boundary)}
            results |= self._per_class("min(IoU, B-Iou)", np.minimum(iou, boundary))
        results |= {"mACC": _mean(acc), "pACC": None, **self._per_class("ACC", acc)}
        results |= {"mDice": _mean(dice), **self._per_class("Dice", dice)}
        if has_gt.any():
            results["fwIoU"] = percent(np.sum(iou[has_gt] * (gt_px / total)[has_gt]))
            results["pACC"] = percent(np.sum(correct) / total)
        return results

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, and arrays of integers.
        """
        images = self.images.in_order()
        tables = [table for _, table in images]
        arrays: dict[str, NDArray[Any]] = {
            "confusion": self.confusion.copy(),
            "boundary_px": self.boundary_px.copy(),
            "classes": np.concatenate([NO_PIXELS, *tables]),
            "classes_per_image": np.array([len(table) for table in tables], dtype=np.int64),
        }
        image_ids = [image_id for image_id, _ in images]
        return {"names": [*self.names], "options": self._options(), "image_ids": image_ids}, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SemanticIoU:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts("semantic IoU"):
            metric = cls(header["names"], **header["options"])
            boundary_px = arrays["boundary_px"]
            _check_counts("boundary_px", boundary_px, metric.boundary_px.shape)
            metric.add_confusion(arrays["confusion"], None if metric.boundary_ratio is None else boundary_px)
            rows, lengths = arrays["classes"], arrays["classes_per_image"]
            _check_counts("classes_per_image", lengths, (len(header["image_ids"]),))
            check_class_pixels(rows, int(lengths.sum()), len(metric.names))
            for image_id, table in zip(header["image_ids"], np.split(rows, np.cumsum(lengths))[:-1], strict=True):
                metric.images.add(image_id, table)
        return metric

    def _options(self) -> dict[str, Any]:
        return {"ignore_label": self.ignore_label, **boundary_options(self.boundary_ratio)}

    def _per_class(self, prefix: str, values: FloatArray) -> dict[str, float | None]:
        return {f"{prefix}-{name}": percent(value) for name, value in zip(self.names, values.tolist(), strict=True)}

    def _count_boundaries(self, ground_truth: IntArray, prediction: IntArray, ratio: float) -> PixelCounts:
        """(2, C): pixels on both boundaries of a class, and on either, of one image."""
        classes = len(self.names)
        dilation_px = boundary_dilation_px((ground_truth.shape[0], ground_truth.shape[1]), ratio)
        dtype = np.min_scalar_type(classes)
        # 0, or all bits at ignored pixels: with them a label is no class.
        ignored_bits = np.subtract(ground_truth != self.ignore_label, 1, dtype=dtype)
        boundary_labels = []
        for labels in (ground_truth, prediction):
            small = labels.astype(dtype)
            small |= ignored_bits
            small |= np.subtract(boundary_pixels(small, dilation_px), 1, dtype=dtype)
            boundary_labels.append(small)
        gt_labels, pred_labels, pixels = count_pairs(*boundary_labels)
        table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
        np.add.at(table, (np.minimum(gt_labels, classes), np.minimum(pred_labels, classes)), pixels)
        shared = table.diagonal()
        either = table.sum(axis=0) + table.sum(axis=1) - shared
        return np.stack([shared[:classes], either[:classes]])


def _check_counts(name: str, counts: IntArray, shape: tuple[int, ...]) -> None:
    if not isinstance(counts, np.ndarray) or counts.shape != shape or counts.dtype.kind not in "iu":
        got = f"{counts.shape} {counts.dtype}" if isinstance(counts, np.ndarray) else type(counts).__name__
        raise ValueError(f"{name} must be a numpy array of {shape} integers, got {got}")
    if (counts < 0).any():
        raise ValueError(f"{name} must hold numbers of pixels, 0 or more, got {int(counts.min())}")


def _divide(parts: FloatArray, wholes: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
    """Quotients of `parts` and `wholes`, NaN elsewhere."""
    ratios: FloatArray = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=where)
    return ratios


def _mean(values: FloatArray) -> float | None:
    defined = ~np.isnan(values)
    return percent(np.sum(values[defined]) / np.sum(defined)) if defined.any() else None
