"""Instance AP of Cityscapes, equal to cityscapesscripts' to the last bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray, count_pairs
from segkit.metrics.state import FloatArray, ImageTablesMetric, Table, check_distinct_names, join_tables
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

# evalInstanceLevelSemanticLabeling.py: args.overlaps, and args.minRegionSizes[0], which counts without distances.
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_INSTANCE_PX = 100
# A ground truth id is label id * 1000 + instance, or the bare label id; of a thing, that is a group (instance.py).
FIRST_INSTANCE_ID = 1000
LAST_LABEL_ID = 33  # helpers/labels.py
# The labels with ignoreInEval. Only bare ids are void: single caravans (29000...) and trailers (30000...) are not.
VOID_IDS = frozenset({0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30})

GROUND_TRUTH = np.dtype([("instance_id", "i4"), ("pixels", "i8")])
PREDICTION = np.dtype([("category_id", "i4"), ("score", "f8"), ("pixels", "i8"), ("void_px", "i8")])
SHARED = np.dtype([("ground_truth", "i4"), ("prediction", "i4"), ("pixels", "i8")])
DTYPES = {"ground_truth": GROUND_TRUTH, "prediction": PREDICTION, "shared": SHARED}


class MaskPrediction(NamedTuple):
    """One predicted instance of an image.

    Attributes:
        category_id: Label id of a thing.
        score: Any finite number.
        crop: (h, w) bool, the pixels of the instance.
        corner_xy: (left, top) of the crop in the image, in pixels.
    """

    category_id: int
    score: float
    crop: NDArray[np.bool_]
    corner_xy: Sequence[int]


class InstanceTables(NamedTuple):
    """The counts of one image, or of many joined.

    ground_truth: (G,) `GROUND_TRUTH`, every instance and group of a thing. prediction: (P,) `PREDICTION`. shared: (S,)
    `SHARED`, the common pixels of two rows of one label, if any; its first two columns are rows of the other tables.
    """

    ground_truth: Table
    prediction: Table
    shared: Table


class CityscapesAP(ImageTablesMetric[InstanceTables]):
    """AP of things over IoU 0.5, 0.55 ... 0.95, and AP50 (cityscapesscripts, evalInstanceLevelSemanticLabeling.py).

    A ground truth instance has a numbered id and at least 100 pixels. A prediction of its label matches it with an IoU
    strictly above the threshold; of several the best score counts, the others are false positives. A prediction without
    a match is a false positive, unless more than the threshold's share of it lies on void, groups and smaller instances
    of its label (small groups count twice). Predictions may overlap each other; those without pixels are left out. AP
    within 50 and 100 m is not computed: it needs distances.

    The state is the categories and, per image, `InstanceTables`: a few numbers per instance, no maps. No order of
    images, predictions or merged shards moves a bit, also with equal scores. An instance of the class can be pickled.
    """

    counts_name = "Cityscapes' AP"
    image_type = InstanceTables
    dtypes = DTYPES

    def __init__(self, categories: CategorySet) -> None:
        """Start without images.

        Args:
            categories: Cityscapes' categories (category_id = label id); their things are scored.

        Raises:
            ValueError: A thing has a label that Cityscapes does not evaluate.
            DatasetError: Two things have one name: their results would have one key.
        """
        ids = [category.category_id for category in categories.things]
        if invalid := [i for i in ids if not 0 <= i <= LAST_LABEL_ID or i in VOID_IDS]:
            raise ValueError(f"categories must have ids of labels that Cityscapes evaluates as things, got {invalid}")
        check_distinct_names([category.name for category in categories.things], "things")
        super().__init__(categories)

    def update(self, image_id: ImageId, gt_ids: IntArray, predictions: Iterable[MaskPrediction]) -> None:
        """Count one image.

        Args:
            image_id: The image's id.
            gt_ids: (H, W) integers, the values of a *_instanceIds.png.
            predictions: Predicted instances; a generator is consumed one by one.

        Raises:
            DatasetError: The image was counted before, an id has no label or a score is not finite. Nothing is counted.
            ValueError: `gt_ids` is not an (H, W) integer array, a category_id is of no thing, or a crop is not (h, w)
                bool or leaves the image. Nothing is counted.
        """
        where = f"image {image_id!r}"
        ground_truth = self._find_instances(gt_ids, where)
        row_by_id = {instance_id: row for row, instance_id in enumerate(ground_truth["instance_id"].tolist())}
        labels = _get_label_ids(ground_truth["instance_id"]).tolist()
        things = [*self.categories.thing_contiguous_ids]
        rows: list[tuple[int, float, int, int]] = []
        shared: list[tuple[int, int, int]] = []
        for index, (category_id, score, crop, corner_xy) in enumerate(predictions):
            if category_id not in things:
                problem = f"category_id must be of a thing, one of {things}, got {category_id!r}"
                raise ValueError(f"{problem} ({where}, prediction {index})")
            if not math.isfinite(score):
                raise DatasetError(f"expected a finite score, got {score!r}", where=f"{where}, prediction {index}")
            px_by_id = _count_ids_under(gt_ids, crop, corner_xy)
            if px_by_id:
                px_by_row = {row_by_id[i]: px for i, px in px_by_id.items() if i in row_by_id}
                shared += [(row, len(rows), px) for row, px in px_by_row.items() if labels[row] == category_id]
                void_px = sum(px for i, px in px_by_id.items() if i in VOID_IDS)
                rows.append((category_id, float(score), sum(px_by_id.values()), void_px))
        self.add(image_id, InstanceTables(ground_truth, np.array(rows, PREDICTION), np.array(shared, SHARED)))

    def compute(self) -> dict[str, float | None]:
        """Compute the metrics over all images.

        Returns:
            AP, AP50, and `AP-<name>`, `AP50-<name>` of every thing, in percent (float64). A thing without a ground
            truth instance has None and is left out of the means; one that is never predicted has 0. All are None
            without any ground truth instance.
        """
        things = self.categories.things
        tables = _join([tables for _, tables in self._images.in_order()])
        ap = np.array([_compute_ap(tables, c.category_id) for c in things]).reshape(-1, len(THRESHOLDS))
        results = {"AP": _mean(ap), "AP50": _mean(ap[:, 0])}
        results.update({f"AP-{c.name}": _mean(row) for c, row in zip(things, ap, strict=True)})
        results.update({f"AP50-{c.name}": _mean(row[:1]) for c, row in zip(things, ap, strict=True)})
        return results

    def _find_instances(self, gt_ids: IntArray, where: str) -> Table:
        """(G,) `GROUND_TRUTH`, every instance and group of a thing."""
        ids, _, pixels = count_pairs(gt_ids, gt_ids)
        labels = _get_label_ids(ids)
        if invalid := ids[(labels < 0) | (labels > LAST_LABEL_ID)].tolist():
            expected = f"0..{LAST_LABEL_ID}, or {FIRST_INSTANCE_ID} times these plus an instance"
            problem = f"expected ids of labels, {expected}, got {abbreviate(invalid)}"
            raise DatasetError(problem, where=f"{where}, ground truth")
        is_thing = np.isin(labels, [*self.categories.thing_contiguous_ids])
        return np.array([*zip(ids[is_thing].tolist(), pixels[is_thing].tolist(), strict=True)], GROUND_TRUTH)

    def _check_image(self, image: InstanceTables) -> None:
        ground_truth, prediction, shared = image
        for name in ("ground_truth", "prediction"):
            if not np.isin(shared[name], np.arange(len(getattr(image, name)))).all():
                raise ValueError("`shared` points to missing rows")
        things = [*self.categories.thing_contiguous_ids]
        labels = _get_label_ids(ground_truth["instance_id"])
        if not np.isin(labels, things).all() or not np.isin(prediction["category_id"], things).all():
            raise ValueError("instances of other categories")
        if (labels[shared["ground_truth"]] != prediction["category_id"][shared["prediction"]]).any():
            raise ValueError("common pixels of two categories")
        if any((table["pixels"] < 1).any() for table in image) or not np.isfinite(prediction["score"]).all():
            raise ValueError("instances without pixels or score")


def _get_label_ids(instance_ids: NDArray[Any]) -> NDArray[Any]:
    return np.where(instance_ids < FIRST_INSTANCE_ID, instance_ids, instance_ids // FIRST_INSTANCE_ID)


def _count_ids_under(gt_ids: IntArray, crop: NDArray[np.bool_], corner_xy: Sequence[int]) -> dict[int, int]:
    """Pixels of every id inside the mask."""
    (left, top), (height, width) = corner_xy, gt_ids.shape
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise ValueError(f"crop must be an (h, w) bool array, got shape {crop.shape}, {crop.dtype}")
    if left < 0 or top < 0 or top + crop.shape[0] > height or left + crop.shape[1] > width:
        raise ValueError(f"crop {crop.shape} at (x={left}, y={top}) leaves the {height} x {width} image")
    window = gt_ids[top : top + crop.shape[0], left : left + crop.shape[1]]
    ids, inside, pixels = count_pairs(window, crop.view(np.uint8))
    return dict(zip(ids[inside == 1].tolist(), pixels[inside == 1].tolist(), strict=True))


def _join(images: Sequence[InstanceTables]) -> InstanceTables:
    """One table of each kind over all images."""
    joined, lengths = join_tables(images, DTYPES)
    for name in ("ground_truth", "prediction"):
        first_rows = np.cumsum(lengths[name]) - lengths[name]
        joined["shared"][name] += np.repeat(first_rows, lengths["shared"])
    return InstanceTables(**joined)


def _compute_ap(tables: InstanceTables, category_id: int) -> FloatArray:
    """(10,) AP in [0, 1] at each of `THRESHOLDS`; NaN if no instance of the label counts."""
    ground_truth, prediction, shared = tables
    of_label = _get_label_ids(ground_truth["instance_id"]) == category_id
    is_instance = (ground_truth["instance_id"] >= FIRST_INSTANCE_ID) & (ground_truth["pixels"] >= MIN_INSTANCE_PX)
    counts = of_label & is_instance
    predicted = prediction["category_id"] == category_id
    if not counts.any() or not predicted.any():
        return np.full(len(THRESHOLDS), 0.0 if counts.any() else np.nan)
    shared = shared[predicted[shared["prediction"]]]
    shared = shared[np.lexsort((prediction["score"][shared["prediction"]], shared["ground_truth"]))]
    gt_rows, pred_rows = shared["ground_truth"], shared["prediction"]
    iou = shared["pixels"] / (ground_truth["pixels"][gt_rows] + prediction["pixels"][pred_rows] - shared["pixels"])
    ignored_share = _compute_ignored_shares(tables)
    precisions = []
    for threshold in THRESHOLDS:
        hit = iou > threshold
        false_positive = predicted & (ignored_share <= threshold)
        false_positive[pred_rows[hit]] = False
        hit &= counts[gt_rows]
        # By instance, then score: the last hit of each instance is its best one, the others are false positives.
        best = np.append(gt_rows[hit][1:] != gt_rows[hit][:-1], True)[: np.count_nonzero(hit)]
        scores = prediction["score"][np.concatenate([pred_rows[hit], np.flatnonzero(false_positive)])]
        is_tp = np.zeros(len(scores))
        is_tp[: len(best)] = best
        precisions.append(_compute_area(scores, is_tp, np.count_nonzero(counts) - np.count_nonzero(best)))
    return np.array(precisions)


def _compute_ignored_shares(tables: InstanceTables) -> FloatArray:
    """(P,) the share of each prediction on void, groups and small instances of its label.

    A small group counts twice, as a group and as small.
    """
    ground_truth, prediction, shared = tables
    is_group = ground_truth["instance_id"] < FIRST_INSTANCE_ID
    times = is_group.astype(np.int64) + (ground_truth["pixels"] < MIN_INSTANCE_PX)
    weights = shared["pixels"] * times[shared["ground_truth"]]
    ignored_px = prediction["void_px"] + np.bincount(shared["prediction"], weights, len(prediction))
    shares: FloatArray = ignored_px / prediction["pixels"]
    return shares


def _compute_area(scores: FloatArray, is_tp: FloatArray, missed: int) -> float:
    """The step-wise integral of precision over recall; 0 without scores, for which the reference fails.

    scores, is_tp: (N,), 1 for true and 0 for false positives. missed: instances without a match. Precision and recall
    are taken at every distinct score, so that the order of equal scores plays no part.
    """
    order = np.argsort(scores)
    first = np.unique(scores[order], return_index=True)[1]
    below = np.append(0.0, np.cumsum(is_tp[order]))
    hits = below[-1] - below[first]
    precision = np.append(hits / (len(scores) - first), 1.0)
    recall = np.append(hits / (below[-1] + missed), 0.0)
    # The same calls as the reference's: another way of adding would move the last bits.
    steps = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0, 0.5], "valid")
    return float(np.dot(precision, steps))


def _mean(precisions: FloatArray) -> float | None:
    """Mean in percent over what is not NaN; nanmean adds as the reference does."""
    return None if np.isnan(precisions).all() else float(np.nanmean(precisions) * 100)
