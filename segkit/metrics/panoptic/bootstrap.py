"""How certain panoptic quality is: intervals over resampled images, and whether one model is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segkit.metrics import comparison
from segkit.metrics.comparison import LEVEL, SAMPLES, SEED, Resampled, Support, resample
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import METRICS, SUFFIXES, Counts
from segkit.metrics.panoptic.matching import FloatArray, IntArray, match
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.state import argsort_image_ids, mean_over_present
from segkit.structures import CategorySet

NAMES = tuple(name + suffix for suffix in SUFFIXES for name in METRICS)
# The columns in which two evaluations of one ground truth agree.
GROUND_TRUTH = ("segment_id", "category_id", "iscrowd", "counted_px")


def confidence_intervals(
    table: OverlapTable,
    categories: CategorySet,
    mode: str = "reference",
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Compute percentile bootstrap intervals over images of PQ, SQ and RQ.

    Whole images are drawn, as many as the dataset has, since segments of one image are not independent. As in PQ, a
    class without segments in a resample is left out of the mean; the interval of the class itself is over the resamples
    that have it. The order of images changes nothing.

    Args:
        table: The segments of all images.
        categories: Their categories.
        mode: The mode of `match`.
        samples: Number of resamples, at least 1.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        PQ, SQ, RQ of all, things (`_th`) and stuff (`_st`): name -> {value: as `PanopticQuality.compute`, low, high:
        ends of the interval}, in percent.
        `per_class`: str(category_id) -> the same of PQ, SQ, RQ; `images`: those with segments of the class; `objects`:
        its ground truth segments.
        `level`, `samples`, `seed`, `images`; `reason`: why no interval is given, else None.
        low and high are None if the metric has no value, and (of the class) with fewer than two images or fewer than
        `comparison.MIN_OBJECTS` segments, which say little about the spread.

    Raises:
        ValueError: `samples` is below 1, `level` is outside (0, 1) or the mode is unknown.
    """
    support, [resampled] = _resample_tables([table], categories, mode, samples, seed)
    rows = comparison.build_intervals(resampled, _expand(support), level)
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table.image_ids)}
    return _build_result(rows, support, categories, options)


def compare(
    table_a: OverlapTable,
    table_b: OverlapTable,
    categories: CategorySet,
    mode: str = "reference",
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Compute by how much B is better than A on the same images: paired bootstrap, both on the same resamples.

    Of many classes some differ by chance: one in twenty at the level of 0.95.

    Args:
        table_a: The segments of all images, with the predictions of A.
        table_b: The segments of the same images and ground truth, with the predictions of B.
        categories: Their categories.
        mode: The mode of `match`.
        samples: Number of resamples, at least 1.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        As `confidence_intervals`, with other values: {A, B: in percent, difference: B - A in points, low, high: its
        interval, share_better: share of the resamples in [0, 1] in which B is better (equal is not better), conclusion:
        about B, "better" or "worse" if the interval excludes 0, else "no clear difference"}. Without an interval the
        conclusion is "too few objects" or "too few images", and the values about the resamples are None.
        `images` of a class: those with a segment of it in A or B.

    Raises:
        DatasetError: The images or their ground truth segments differ.
        ValueError: As in `confidence_intervals`.
    """
    comparison.check_same_images(table_a.image_ids, table_b.image_ids)
    ground_truth = _sort_ground_truth(table_a), _sort_ground_truth(table_b)
    comparison.check_same_rows(*ground_truth, table_a.image_ids, "segments")
    support, (a, b) = _resample_tables([table_a, table_b], categories, mode, samples, seed)
    rows = comparison.build_differences(a, b, _expand(support), level)
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table_a.image_ids)}
    return _build_result(rows, support, categories, options)


def _resample_tables(
    tables: Sequence[OverlapTable], categories: CategorySet, mode: str, samples: int, seed: int
) -> tuple[Support, list[Resampled]]:
    """Support of all, things, stuff and each class; and of each table the 9 + 3 C values, also resampled.

    The values are the metric's, bit for bit, in the order of `_compute_resampled`. Without images all are NaN. The
    tables have the same ground truth.
    """
    exact = mode == "corrected"
    per_table, results = [], []
    for table in tables:
        matching = match(table, mode)
        total = counting.count(table, matching, categories, exact=exact)
        averages = counting.averages(total, categories, exact=exact)
        means = np.array([averages[name] for name in NAMES], dtype=np.float64)  # None becomes NaN
        values = np.concatenate([means, *(100 * column for column in total.quality())])
        columns = vars(counting.count_per_image(table, matching, categories)).values()
        order = argsort_image_ids(table.image_ids)
        counts = np.stack([column[order] for column in columns], axis=1, dtype=float)  # (I, 4, C)
        flat = counts.reshape(len(counts), 4 * len(categories)) if len(counts) else np.zeros((1, 4 * len(categories)))
        drawn = resample(flat, lambda sums: _compute_resampled(sums, categories), samples, seed)
        per_table.append(counts)
        results.append(Resampled(values, drawn))
    objects = total.tp + total.fn
    groups = [objects[group].sum() for group in counting.select_groups(categories).values()]
    return Support(_count_images(categories, per_table), np.array([*groups, *objects], np.int64)), results


def _compute_resampled(sums: FloatArray, categories: CategorySet) -> FloatArray:
    """(S, 4 C) summed counts -> (S, 9 + 3 C) percent: PQ, SQ, RQ of all, of things, of stuff; PQ, SQ, RQ of classes."""
    columns = Counts(*sums.reshape(len(sums), 4, -1).swapaxes(0, 1)).quality()
    groups = counting.select_groups(categories).values()
    means = [mean_over_present(column[:, group]) for group in groups for column in columns]
    return 100 * np.concatenate([np.stack(means, axis=1), *columns], axis=1)


def _count_images(categories: CategorySet, counts: Sequence[FloatArray]) -> IntArray:
    """(3 + C,) images with a counted segment of all, things, stuff and each class, in any of the (I, 4, C) counts."""
    present = np.any([each[:, 1:].sum(axis=1) > 0 for each in counts], axis=0)
    groups = counting.select_groups(categories).values()
    return np.array([*(present[:, group].any(axis=1).sum() for group in groups), *present.sum(axis=0)], np.int64)


def _expand(support: Support) -> Support:
    """(3 + C,) columns, of groups and classes -> (9 + 3 C,) columns, of the values in their order."""
    names, groups = len(METRICS), len(SUFFIXES)
    columns = (support.images, support.objects)
    return Support(*(np.append(np.repeat(c[:groups], names), np.tile(c[groups:], names)) for c in columns))


def _build_result(
    rows: list[dict[str, Any]], support: Support, categories: CategorySet, options: dict[str, Any]
) -> dict[str, Any]:
    """The rows, in the order of `_compute_resampled`, under their names."""
    classes, number = rows[len(NAMES) :], len(categories)
    images, objects = support.images.tolist(), support.objects.tolist()
    per_class = {
        str(category.category_id): dict(zip(METRICS, classes[row::number], strict=True))
        | {"images": images[len(SUFFIXES) + row], "objects": objects[len(SUFFIXES) + row]}
        for row, category in enumerate(categories.categories)
    }
    reason = comparison.explain_missing_intervals(images[0], objects[0], "segments")
    return {**options, "reason": reason, **dict(zip(NAMES, rows, strict=False)), "per_class": per_class}


def _sort_ground_truth(table: OverlapTable) -> IntArray:
    """(T, 5) index of the image in the order of their ids, and `GROUND_TRUTH`; sorted by image and segment_id."""
    image = np.argsort(argsort_image_ids(table.image_ids))[table.gt_image]
    order = np.lexsort((table.ground_truth["segment_id"], image))
    columns = [image, *(table.ground_truth[name] for name in GROUND_TRUTH)]
    return np.stack([column[order] for column in columns], axis=1, dtype=np.int64)
