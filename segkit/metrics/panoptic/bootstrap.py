"""How sure panoptic quality is: intervals over resampled images, and whether one model is better than another."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import Counts, IntArray
from segkit.metrics.panoptic.matching import BoolArray, FloatArray, match
from segkit.metrics.panoptic.overlaps import OverlapTable, Table
from segkit.metrics.per_image import argsort_image_ids, named
from segkit.metrics.resampling import LEVEL, MIN_IMAGES, SAMPLES, SEED, bounds, mean_over_present, resample
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError

NAMES = ("PQ", "SQ", "RQ")
SUFFIXES = ("", "_th", "_st")
CERTAIN_POINTS = 1e-9  # a difference below is rounding
# What two scorings against one ground truth have in common.
GROUND_TRUTH = np.dtype(
    [("image", "i8"), ("segment_id", "i4"), ("category_id", "i8"), ("iscrowd", "?"), ("counted_px", "i8")]
)


def confidence_intervals(
    table: OverlapTable,
    categories: CategorySet,
    mode: str = "reference",
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Percentile bootstrap over images of PQ, SQ, RQ, also of things (`_th`), stuff (`_st`) and each class.

    Name -> {value: as `PanopticQuality.compute` gives it, low, high: ends of the interval}, in percent; `per_class`:
    str(category_id) -> the same of PQ, SQ, RQ, and `images`: those with a counted segment of the class. `level`,
    `samples`, `seed`, `images`; `reason`: why no interval is given, else None.
    Whole images are drawn, as many as there are, since segments of one image are no independent draws. As in PQ a
    class that a resample lacks is left out of its mean; the class's own interval is over the resamples that have it.
    low and high are None where a number has no value and with fewer than two images (of the class), which say nothing
    of the spread. The order of images changes nothing. ValueError for samples < 1 or level outside (0, 1).
    """
    counts = _per_image(table, categories, mode)
    values = _values(table, categories, mode)
    drawn = _drawn(counts, categories, samples, seed)
    low, high = bounds(drawn, level)
    images = _images_with(categories, counts)
    known = _known(values, images)
    rows = [
        {"value": _number(value), "low": _number(one), "high": _number(other)}
        for value, one, other in zip(values, *(np.where(known, end, np.nan) for end in (low, high)), strict=True)
    ]
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table.image_ids)}
    return _result(rows, images, categories, options)


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
    """By how much B is better than A on the same images: paired bootstrap, both on the same resamples.

    As `confidence_intervals`, name -> {A, B: the values, difference: B - A in points, low, high: its interval,
    share_better: of the resamples in [0, 1] in which B is better (equal is not better), verdict: of B, "better" or
    "worse" where the interval excludes 0, else "no clear difference"}; all but A and B None where there is no interval.
    `images` of a class: those with a segment of it in A or B. Of many classes some differ by chance: one in twenty at
    the level of 0.95.
    Raises DatasetError, naming some, where the images or their true segments differ.
    """
    _check_images(table_a, table_b)
    _check_truth(table_a, table_b)
    counts = [_per_image(table, categories, mode) for table in (table_a, table_b)]
    a, b = (_values(table, categories, mode) for table in (table_a, table_b))
    images = _images_with(categories, *counts)
    known = _known(b - a, images)
    drawn_a, drawn_b = (_drawn(one, categories, samples, seed) for one in counts)
    change = drawn_b - drawn_a
    change[np.abs(change) < CERTAIN_POINTS] = 0
    low, high = bounds(change, level)
    better = (change > 0).sum(axis=0) / np.maximum((~np.isnan(change)).sum(axis=0), 1)
    rows = [
        _difference(*numbers) for numbers in zip(a.tolist(), b.tolist(), low, high, better, known.tolist(), strict=True)
    ]
    options = {"level": level, "samples": samples, "seed": seed, "images": len(table_a.image_ids)}
    return _result(rows, images, categories, options)


def _difference(a: float, b: float, low: float, high: float, better: float, known: bool) -> dict[str, Any]:
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return {
        "A": _number(a),
        "B": _number(b),
        "difference": _number(b - a),
        "low": _number(low) if known else None,
        "high": _number(high) if known else None,
        "share_better": float(better) if known else None,
        "conclusion": verdict if known else None,
    }


def _per_image(table: OverlapTable, categories: CategorySet, mode: str) -> FloatArray:
    """(I, 4, C) float64 sums of IoU, tp, fp, fn of every image, by ascending image_id."""
    counts = counting.count_per_image(table, match(table, mode), categories)
    order = argsort_image_ids(table.image_ids)
    return np.stack([column[order] for column in (counts.iou, counts.tp, counts.fp, counts.fn)], axis=1, dtype=float)


def _values(table: OverlapTable, categories: CategorySet, mode: str) -> FloatArray:
    """The numbers over all images, in the order of `_numbers`, bit for bit the metric's."""
    exact = mode == "corrected"
    counts = counting.count(table, match(table, mode), categories, exact=exact)
    overall = counting.averages(counts, categories, exact=exact)
    averages = [overall[name + suffix] for suffix in SUFFIXES for name in NAMES]
    means = np.array([np.nan if value is None else value for value in averages])
    return np.concatenate([means, *(100 * column for column in counts.quality())])


def _drawn(counts: FloatArray, categories: CategorySet, samples: int, seed: int) -> FloatArray:
    """(samples, 9 + 3 C) resampled numbers; of no image, all undefined."""
    flat = counts.reshape(len(counts), 4 * len(categories))
    if not len(flat):
        flat = np.zeros((1, 4 * len(categories)))
    return resample(flat, lambda sums: _numbers(sums, categories), samples, seed)


def _numbers(sums: FloatArray, categories: CategorySet) -> FloatArray:
    """(S, 4 C) summed counts -> (S, 9 + 3 C) percent: PQ, SQ, RQ of all, of things, of stuff; PQ, SQ, RQ of classes."""
    columns = Counts(*sums.reshape(len(sums), 4, -1).swapaxes(0, 1)).quality()
    means = [mean_over_present(column[:, group]) for group in _groups(categories) for column in columns]
    return 100 * np.concatenate([np.stack(means, axis=1), *columns], axis=1)


def _groups(categories: CategorySet) -> BoolArray:
    """(3, C) categories of all, things and stuff."""
    isthing = np.array([category.isthing for category in categories.categories])
    return np.stack([np.ones_like(isthing), isthing, ~isthing])


def _images_with(categories: CategorySet, *counts: FloatArray) -> IntArray:
    """(3 + C,) images with a counted segment of all, things, stuff and each class, in any of the (I, 4, C) counts."""
    present = np.any([one[:, 1:].sum(axis=1) > 0 for one in counts], axis=0)
    of_groups = [present[:, group].any(axis=1).sum() for group in _groups(categories)]
    return np.append(of_groups, present.sum(axis=0)).astype(np.int64)


def _known(values: FloatArray, images: IntArray) -> BoolArray:
    """(9 + 3 C,) whether there is a value, and enough images to tell its spread."""
    groups, classes = images[: len(SUFFIXES)], images[len(SUFFIXES) :]
    known: BoolArray = np.concatenate([np.repeat(groups, len(NAMES)), np.tile(classes, len(NAMES))]) >= MIN_IMAGES
    return known & ~np.isnan(values)


def _result(
    rows: list[dict[str, Any]], images: IntArray, categories: CategorySet, options: dict[str, Any]
) -> dict[str, Any]:
    """Rows in the order of `_numbers` under their names; images: of `_images_with`."""
    names = [name + suffix for suffix in SUFFIXES for name in NAMES]
    classes, number = rows[len(names) :], len(categories)
    per_class = {
        str(category.category_id): {
            **{name: classes[place * number + row] for place, name in enumerate(NAMES)},
            "images": int(images[len(SUFFIXES) + row]),
        }
        for row, category in enumerate(categories.categories)
    }
    few = f"images with segments: {images[0]}; an interval over images needs at least {MIN_IMAGES}"
    reason = few if images[0] < MIN_IMAGES else None
    return {**options, "reason": reason, **dict(zip(names, rows, strict=False)), "per_class": per_class}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_images(table_a: OverlapTable, table_b: OverlapTable) -> None:
    for one, other, absent in ((table_a, table_b, "B"), (table_b, table_a, "A")):
        there = set(other.image_ids)
        lacking = [
            one.image_ids[place] for place in argsort_image_ids(one.image_ids) if one.image_ids[place] not in there
        ]
        if lacking:
            raise DatasetError(
                f"expected the same images in A and B, {absent} lacks {named(lacking)}",
                remedy="score both on the same images",
            )


def _check_truth(table_a: OverlapTable, table_b: OverlapTable) -> None:
    a, b = _true_segments(table_a), _true_segments(table_b)
    shared = min(len(a), len(b))
    differ = np.append(np.flatnonzero(a[:shared] != b[:shared]), shared)[0]
    places = [int(rows["image"][differ]) for rows in (a, b) if differ < len(rows)]
    if places:
        image_id = table_a.image_ids[argsort_image_ids(table_a.image_ids)[min(places)]]
        raise DatasetError(
            "expected the same true segments in A and B, they differ",
            where=f"image {image_id!r}",
            remedy="score both against the same ground truth",
        )


def _true_segments(table: OverlapTable) -> Table:
    """(T,) `TRUTH` rows by image and segment_id, images in the order of their ids."""
    rank = np.argsort(argsort_image_ids(table.image_ids))
    rows = np.zeros(len(table.ground_truth), dtype=GROUND_TRUTH)
    rows["image"] = rank[table.gt_image]
    for name in ("segment_id", "category_id", "iscrowd", "counted_px"):
        rows[name] = table.ground_truth[name]
    return np.sort(rows, order=["image", "segment_id"])
