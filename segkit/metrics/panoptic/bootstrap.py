"""How certain panoptic quality is: intervals over resampled images, and whether one model is better than another.

The bootstrap over images (Efron 1979) holds for any metric that is a function of counts summed over images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import METRICS, SUFFIXES, Counts, mean_over_present, none_if_nan
from segkit.metrics.panoptic.matching import FloatArray, IntArray, match
from segkit.metrics.panoptic.overlaps import OverlapTable
from segkit.metrics.state import argsort_image_ids, sort_image_ids
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

SAMPLES = 1000
SEED = 0
LEVEL = 0.95
MIN_IMAGES = 2  # one image resampled is itself
BLOCK_CELLS = 2**21  # sample-image weights held at once: 16 MiB
NAMES = tuple(name + suffix for suffix in SUFFIXES for name in METRICS)
CERTAIN_POINTS = 1e-9  # a difference below is rounding
# The columns in which two evaluations of one ground truth agree.
GROUND_TRUTH = ("segment_id", "category_id", "iscrowd", "counted_px")

Statistic = Callable[[FloatArray], FloatArray]


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
        `per_class`: str(category_id) -> the same of PQ, SQ, RQ, and `images`: those with segments of the class.
        `level`, `samples`, `seed`, `images`; `reason`: why no interval is given, else None.
        low and high are None if the metric has no value, and with fewer than two images (of the class), which say
        nothing about the spread.

    Raises:
        ValueError: `samples` is below 1, `level` is outside (0, 1) or the mode is unknown.
    """
    images, [(values, drawn)] = _resample_tables([table], categories, mode, samples, seed)
    low, high = _hide(values, images, *percentile_interval(drawn, level))
    rows = _build_rows({"value": values, "low": low, "high": high})
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table.image_ids)}
    return _build_result(rows, images, categories, options)


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
        about B, "better" or "worse" if the interval excludes 0, else "no clear difference"}. All but A, B and
        difference are None without an interval.
        `images` of a class: those with a segment of it in A or B.

    Raises:
        DatasetError: The images or their ground truth segments differ.
        ValueError: As in `confidence_intervals`.
    """
    _check_same_images(table_a, table_b)
    _check_same_ground_truth(table_a, table_b)
    images, [(a, drawn_a), (b, drawn_b)] = _resample_tables([table_a, table_b], categories, mode, samples, seed)
    change = drawn_b - drawn_a
    change[np.abs(change) < CERTAIN_POINTS] = 0
    better = (change > 0).sum(axis=0) / np.maximum((~np.isnan(change)).sum(axis=0), 1)
    low, high, share_better = _hide(b - a, images, *percentile_interval(change, level), better)
    columns = {"A": a, "B": b, "difference": b - a, "low": low, "high": high, "share_better": share_better}
    rows = _build_rows(columns)
    for row in rows:
        row["conclusion"] = None
        if row["low"] is not None and row["high"] is not None:
            row["conclusion"] = "better" if row["low"] > 0 else "worse" if row["high"] < 0 else "no clear difference"
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table_a.image_ids)}
    return _build_result(rows, images, categories, options)


def resample(counts: FloatArray, statistic: Statistic, samples: int = SAMPLES, seed: int = SEED) -> FloatArray:
    """(samples, M) float64: a metric over images drawn with replacement, as many as there are.

    counts: (I, K) float64 of every image; statistic: (S, K) sums over images -> (S, M) values, NaN if undefined. The
    draws depend on seed, samples and I alone: two sets of counts of the same images, in the same order, are resampled
    alike, so that their difference is paired. ValueError without an image or a sample.
    """
    images = len(counts)
    if not images:
        raise ValueError("counts must hold at least one image, got none")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    generator, block = np.random.default_rng(seed), max(1, BLOCK_CELLS // images)
    drawn = []
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        cells = generator.integers(images, size=(rows, images)) + np.arange(rows)[:, np.newaxis] * images
        weights = np.bincount(cells.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
        drawn.append(statistic(weights @ counts))
    return np.concatenate(drawn)


def percentile_interval(values: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """(M,) lower and upper ends of the percentile interval of (S, M) resampled values, over those that are defined.

    NaN if none is. level: share of the resamples between the ends; ValueError if it is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = np.full((2, values.shape[1]), np.nan)
    for column, resampled in enumerate(values.T):
        defined = resampled[~np.isnan(resampled)]
        if len(defined):
            low[column], high[column] = np.quantile(defined, ends)
    return low, high


def _resample_tables(
    tables: Sequence[OverlapTable], categories: CategorySet, mode: str, samples: int, seed: int
) -> tuple[IntArray, list[tuple[FloatArray, FloatArray]]]:
    """`_count_images` of all tables; and of each table the (9 + 3 C,) values and (samples, 9 + 3 C) resampled values.

    The values are the metric's, bit for bit, in the order of `_compute_resampled`. Without images all are NaN.
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
        results.append((values, drawn))
    return _count_images(categories, per_table), results


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


def _hide(values: FloatArray, images: IntArray, *columns: FloatArray) -> list[FloatArray]:
    """The (9 + 3 C,) columns with NaN if there is no value, or too few images for a spread."""
    groups, classes = images[: len(SUFFIXES)], images[len(SUFFIXES) :]
    has_spread = np.append(np.repeat(groups, len(METRICS)), np.tile(classes, len(METRICS))) >= MIN_IMAGES
    return [np.where(has_spread & ~np.isnan(values), column, np.nan) for column in columns]


def _build_rows(columns: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """One dict per value, with None for NaN."""
    return [dict(zip(columns, map(none_if_nan, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _build_result(
    rows: list[dict[str, Any]], images: IntArray, categories: CategorySet, options: dict[str, Any]
) -> dict[str, Any]:
    """The rows, in the order of `_compute_resampled`, under their names; images: from `_count_images`."""
    classes, number, class_images = rows[len(NAMES) :], len(categories), images[len(SUFFIXES) :].tolist()
    per_class = {
        str(category.category_id): dict(zip(METRICS, classes[row::number], strict=True)) | {"images": class_images[row]}
        for row, category in enumerate(categories.categories)
    }
    few = f"images with segments: {images[0]}; an interval over images needs at least {MIN_IMAGES}"
    reason = few if images[0] < MIN_IMAGES else None
    return {**options, "reason": reason, **dict(zip(NAMES, rows, strict=False)), "per_class": per_class}


def _check_same_images(table_a: OverlapTable, table_b: OverlapTable) -> None:
    for table, other, name in ((table_a, table_b, "B"), (table_b, table_a, "A")):
        other_ids = {*other.image_ids}
        missing = [image_id for image_id in sort_image_ids(table.image_ids) if image_id not in other_ids]
        if missing:
            problem = f"expected the same images in A and B, {name} lacks {abbreviate(missing)}"
            raise DatasetError(problem, remedy="score both on the same images")


def _check_same_ground_truth(table_a: OverlapTable, table_b: OverlapTable) -> None:
    a, b = _sort_ground_truth(table_a), _sort_ground_truth(table_b)
    shared = min(len(a), len(b))
    first = np.append(np.flatnonzero((a[:shared] != b[:shared]).any(axis=1)), shared)[0]
    images = [int(rows[first, 0]) for rows in (a, b) if first < len(rows)]
    if images:
        image_id = table_a.image_ids[argsort_image_ids(table_a.image_ids)[min(images)]]
        problem = "expected the same ground truth segments in A and B, they differ"
        remedy = "score both against the same ground truth"
        raise DatasetError(problem, where=f"image {image_id!r}", remedy=remedy)


def _sort_ground_truth(table: OverlapTable) -> IntArray:
    """(T, 5) index of the image in the order of their ids, and `GROUND_TRUTH`; sorted by image and segment_id."""
    image = np.argsort(argsort_image_ids(table.image_ids))[table.gt_image]
    order = np.lexsort((table.ground_truth["segment_id"], image))
    columns = [image, *(table.ground_truth[name] for name in GROUND_TRUTH)]
    return np.stack([column[order] for column in columns], axis=1, dtype=np.int64)
