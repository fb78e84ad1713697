"""By how much AP of B is better than AP of A on the same images, and how certain that is: paired bootstrap.

An image that is drawn w times counts as w images. Its objects and results count w times, and all copies of a result
stand at one place of the ranking, so that a resample needs no new matching.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics import comparison
from segkit.metrics.average_precision import EPSILON, AveragePrecision
from segkit.metrics.coco_matching import AREAS_PX, IOU_THRESHOLDS, RECALLS, ObjectCounts
from segkit.metrics.comparison import LEVEL, SAMPLES, SEED, IntArray, Resampled, Support
from segkit.metrics.state import FloatArray, argsort_image_ids, mean_over_present

ALL = 0  # of `AREAS_PX`
# Name -> area range, and the IoU threshold, None for the mean over all.
NAMES: Mapping[str, tuple[int, float | None]] = {
    "AP": (ALL, None),
    "AP50": (ALL, 0.5),
    "AP75": (ALL, 0.75),
    "APs": (1, None),
    "APm": (2, None),
    "APl": (3, None),
}
BLOCK_CELLS = 2**22  # weights of a class's results in a block of resamples: 16 MiB


def compare_average_precision(
    a: AveragePrecision, b: AveragePrecision, *, samples: int = SAMPLES, seed: int = SEED, level: float = LEVEL
) -> dict[str, dict[str, Any]]:
    """Compute by how much AP of B is better, for the kinds of IoU that both have.

    The resampled AP is COCO's: if every image is drawn once, it is AP but for rounding. A class without objects in a
    resample is left out of its mean.

    Args:
        a: The counts of A.
        b: The counts of B, over the same images and categories.
        samples: Number of resamples, at least 1.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        Kind of IoU -> AP, AP50, AP75, APs, APm, APl and `per_class`: str(category_id) -> {AP, images, objects}, all
        else as in `panoptic.bootstrap.compare`. `images` of a class: those with an object of it.

    Raises:
        DatasetError: The images or their numbers of objects differ.
        ValueError: `samples` is below 1, `level` is outside (0, 1), or the categories differ.
    """
    if a.categories != b.categories:
        raise ValueError("a and b must have the same categories, they differ")
    comparison.check_same_images(a.ids(), b.ids())
    objects, objects_b = _sort_objects(a), _sort_objects(b)
    tables = [np.column_stack([table.image, table.thing, table.number]) for table in (objects, objects_b)]
    comparison.check_same_rows(tables[0], tables[1], a.ids(), "objects")
    things, images = len(a.categories.things), len(a)
    support = _count_support(objects, things)
    results = {}
    for iou_type in (kind for kind in a.iou_types if kind in b.iou_types):
        resampled = [_resample(metric, iou_type, objects, samples, seed) for metric in (a, b)]
        rows = comparison.build_differences(resampled[0], resampled[1], support, level)
        results[iou_type] = {"level": level, "samples": samples, "seed": seed, "images": images}
        results[iou_type] |= _build_result(rows, support, [str(c.category_id) for c in a.categories.things])
    return results


class _Class(NamedTuple):
    """Results of a class by falling score, and its objects; `image` is the index in the order of the ids.

    image: (N,) int64. tp, fp: (N, 4, 10) bool by area range and IoU threshold. object_image: (M,) int64. objects: (M,
    4) int64 by area range.
    """

    image: IntArray
    tp: NDArray[np.bool_]
    fp: NDArray[np.bool_]
    object_image: IntArray
    objects: IntArray


def _sort_objects(metric: AveragePrecision) -> ObjectCounts:
    """The objects by image, whose index is in the order of the ids, and class."""
    index, thing, number = metric.objects()
    image = np.argsort(argsort_image_ids(metric.ids()))[index]
    order = np.lexsort((thing, image))
    return ObjectCounts(image[order].astype(np.int32), thing[order], number[order])


def _count_support(objects: ObjectCounts, things: int) -> Support:
    """Images and objects of each of `NAMES`, then of each class."""
    areas = [area for area, _ in NAMES.values()]
    has_any = objects.number > 0
    images = [len(np.unique(objects.image[has_any[:, area]])) for area in areas]
    of_class = np.bincount(objects.thing[has_any[:, ALL]], minlength=things)
    numbers = np.zeros(things, np.int64)
    np.add.at(numbers, objects.thing, objects.number[:, ALL])
    total = objects.number.sum(axis=0)[areas]
    return Support(np.array([*images, *of_class], np.int64), np.array([*total, *numbers], np.int64))


def _resample(metric: AveragePrecision, iou_type: str, objects: ObjectCounts, samples: int, seed: int) -> Resampled:
    values = _get_values(metric, iou_type)
    if not len(metric):
        return Resampled(values, np.full((samples, len(values)), np.nan))
    classes = _split_classes(metric, iou_type, objects)
    drawn = comparison.resample_images(len(metric), lambda weights: _compute_resampled(weights, classes), samples, seed)
    return Resampled(values, drawn)


def _split_classes(metric: AveragePrecision, iou_type: str, objects: ObjectCounts) -> list[_Class]:
    matches = metric.ranked_matches(iou_type)
    position = np.argsort(argsort_image_ids(metric.ids()))
    classes = []
    for thing in range(len(metric.categories.things)):
        start, stop = np.searchsorted(matches.thing, [thing, thing + 1])
        tp, fp = (
            np.unpackbits(bits[start:stop], axis=1).reshape(-1, len(AREAS_PX), len(IOU_THRESHOLDS)) > 0
            for bits in (matches.tp, matches.fp)
        )
        own = objects.thing == thing
        image = position[matches.image[start:stop]]
        classes.append(_Class(image, tp, fp, objects.image[own].astype(np.int64), objects.number[own]))
    return classes


def _get_values(metric: AveragePrecision, iou_type: str) -> FloatArray:
    """The metric's own values, of `NAMES`, then of each class; NaN if undefined."""
    results = metric.compute()[iou_type]
    names = [*NAMES, *(f"AP-{category.name}" for category in metric.categories.things)]
    return np.array([results[name] for name in names], dtype=np.float64)


def _compute_resampled(weights: FloatArray, classes: list[_Class]) -> FloatArray:
    """(S, I) weights of images -> (S, 6 + C) percent: `NAMES`, and AP of each class."""
    ap = np.full((len(weights), len(classes), len(AREAS_PX), len(IOU_THRESHOLDS)), np.nan)
    times = np.ascontiguousarray(weights.T, dtype=np.int32)  # (I, S)
    for index, one_class in enumerate(classes):
        block = max(1, BLOCK_CELLS // max(1, len(one_class.image)))
        for start in range(0, len(weights), block):
            samples = slice(start, start + block)
            ap[samples, index] = _compute_class(times[:, samples], one_class)
    columns = []
    for area, threshold in NAMES.values():
        of_area = ap[:, :, area]
        columns.append(of_area.mean(axis=2) if threshold is None else of_area[..., threshold == IOU_THRESHOLDS][..., 0])
    means = [mean_over_present(column) for column in columns]
    metrics: NDArray[np.float64] = 100 * np.concatenate([np.stack(means, axis=1), columns[0]], axis=1)
    return metrics


def _compute_class(times: NDArray[np.int32], one_class: _Class) -> FloatArray:
    """(I, S) times that each image is drawn -> (S, 4, 10) AP of one class in [0, 1], NaN without objects."""
    objects = one_class.objects.T @ times[one_class.object_image]  # (4, S)
    ap = np.where(objects.T > 0, 0.0, np.nan)[..., np.newaxis].repeat(len(IOU_THRESHOLDS), axis=2)
    for area in range(len(AREAS_PX)):
        tp, counts = one_class.tp[:, area], one_class.tp[:, area] | one_class.fp[:, area]
        rows = np.flatnonzero(counts.any(axis=1))
        rows = rows[: np.append(np.flatnonzero(tp[rows].any(axis=1)), -1).max() + 1]  # the last hit is the last of use
        if not len(rows):
            continue
        drawn = times[one_class.image[rows]]  # (N, S)
        seen = np.cumsum(drawn, axis=0, dtype=np.int32)
        for threshold in range(len(IOU_THRESHOLDS)):
            hits, ignored = np.flatnonzero(tp[rows, threshold]), np.flatnonzero(~counts[rows, threshold])
            if len(hits):
                ranks = seen[hits] - _sum_before(drawn, ignored, hits)
                ap[:, area, threshold] += _integrate(np.cumsum(drawn[hits], axis=0), ranks, objects[area])
    return ap


def _sum_before(drawn: NDArray[np.int32], ignored: IntArray, hits: IntArray) -> Any:
    """How many ignored results, with their copies, stand before each hit."""
    if not len(ignored):
        return 0
    sums = np.cumsum(drawn[ignored], axis=0, dtype=np.int32)
    return np.concatenate([np.zeros_like(sums[:1]), sums])[np.searchsorted(ignored, hits)]


def _integrate(correct: IntArray, ranks: IntArray, objects: IntArray) -> FloatArray:
    """(S,) mean precision over `RECALLS` of (T, S) true positives and counted results up to each hit.

    The copies of a hit give one precision and several recalls: the envelope of the curve is the last copy's.
    """
    precision = correct / (ranks + EPSILON)
    highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, correct / np.maximum(objects, 1), side="right")
    mean: FloatArray = (highest * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALLS)
    return mean


def _build_result(rows: list[dict[str, Any]], support: Support, keys: list[str]) -> dict[str, Any]:
    images, objects = support.images.tolist(), support.objects.tolist()
    per_class = {
        key: {"AP": rows[index], "images": images[index], "objects": objects[index]}
        for index, key in enumerate(keys, len(NAMES))
    }
    reason = comparison.explain_missing_intervals(images[0], objects[0], "objects")
    return {"reason": reason, **dict(zip(NAMES, rows, strict=False)), "per_class": per_class}
