"""Intervals of a metric, and whether B is better than A: bootstrap over whole images (Efron 1979), paired for two.

It holds for every metric that is a function of the images and of how often each of them is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.state import FloatArray, argsort_image_ids, none_if_nan, sort_image_ids
from segkit.structures import ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

IntArray = NDArray[np.int64]

SAMPLES = 1000
SEED = 0
LEVEL = 0.95
MIN_IMAGES = 2  # one image resampled is itself
MIN_OBJECTS = 10  # of the ground truth; fewer say little about a class or a size, however many images are drawn
BLOCK_CELLS = 2**21  # sample-image weights held at once: 16 MiB
CERTAIN_POINTS = 1e-9  # a difference below is rounding
BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"
FEW_OBJECTS, FEW_IMAGES = "too few objects", "too few images"

Statistic = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Resampled:
    """M values of a metric over all images, and over each resample.

    Attributes:
        values: (M,) float64, in percent, NaN if undefined.
        drawn: (samples, M) float64, the same of every resample.
    """

    values: FloatArray
    drawn: FloatArray


@dataclass(frozen=True)
class Support:
    """What each of M values is computed from.

    Attributes:
        images: (M,) int64, images that the value depends on.
        objects: (M,) int64, ground truth objects of the whole set.
    """

    images: IntArray
    objects: IntArray

    def has_spread(self) -> NDArray[np.bool_]:
        """Whether there are enough images and objects for an interval, of each value."""
        enough: NDArray[np.bool_] = (self.images >= MIN_IMAGES) & (self.objects >= MIN_OBJECTS)
        return enough


def resample(counts: FloatArray, statistic: Statistic, samples: int = SAMPLES, seed: int = SEED) -> FloatArray:
    """(samples, M) float64: a metric of counts that add up, over images drawn as `resample_images` draws them.

    counts: (I, K) float64 of every image; statistic: (S, K) sums over images -> (S, M) values, NaN if undefined.
    """
    return resample_images(len(counts), lambda weights: statistic(weights @ counts), samples, seed)


def resample_images(images: int, statistic: Statistic, samples: int = SAMPLES, seed: int = SEED) -> FloatArray:
    """(samples, M) float64: a metric over images drawn with replacement, as many as there are.

    statistic: (S, I) float64 times that each image is drawn -> (S, M) values, NaN if undefined. The draws depend on
    seed, samples and I alone: two sets of the same images, in the same order, are resampled alike, so that their
    difference is paired. ValueError without an image or a sample.
    """
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
        drawn.append(statistic(weights))
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


def build_intervals(resampled: Resampled, support: Support, level: float) -> list[dict[str, Any]]:
    """{value, low, high} of each of the M values; None for NaN, and for the ends without enough support."""
    shown = support.has_spread() & ~np.isnan(resampled.values)
    low, high = (np.where(shown, end, np.nan) for end in percentile_interval(resampled.drawn, level))
    return _build_rows({"value": resampled.values, "low": low, "high": high})


def build_differences(a: Resampled, b: Resampled, support: Support, level: float) -> list[dict[str, Any]]:
    """{A, B, difference, low, high, share_better, conclusion} of each of the M values, of paired resamples.

    share_better is the share of the resamples in which B is better. conclusion is `BETTER` or `WORSE` if the interval
    excludes 0, else `UNCLEAR`; without enough support `FEW_OBJECTS` or `FEW_IMAGES`; None without a difference.
    """
    change, difference = b.drawn - a.drawn, b.values - a.values
    change[np.abs(change) < CERTAIN_POINTS] = 0
    better = (change > 0).sum(axis=0) / np.maximum((~np.isnan(change)).sum(axis=0), 1)
    shown = support.has_spread() & ~np.isnan(difference)
    low, high, share = (np.where(shown, column, np.nan) for column in (*percentile_interval(change, level), better))
    columns = {"A": a.values, "B": b.values, "difference": difference, "low": low, "high": high, "share_better": share}
    rows = _build_rows(columns)
    for row, objects in zip(rows, support.objects.tolist(), strict=True):
        row["conclusion"] = _conclude(row, objects)
    return rows


def explain_missing_intervals(images: int, objects: int, unit: str) -> str | None:
    """Say why nothing has an interval; None if the images and the objects, named `unit`, are enough."""
    if images < MIN_IMAGES:
        return f"images with {unit}: {images}; an interval over images needs at least {MIN_IMAGES}"
    if objects < MIN_OBJECTS:
        return f"ground truth {unit}: {objects}; an interval needs at least {MIN_OBJECTS}"
    return None


def check_same_images(ids_a: Sequence[ImageId], ids_b: Sequence[ImageId]) -> None:
    """DatasetError if A or B lacks an image of the other."""
    for own, other, name in ((ids_a, {*ids_b}, "B"), (ids_b, {*ids_a}, "A")):
        missing = [image_id for image_id in sort_image_ids(own) if image_id not in other]
        if missing:
            problem = f"expected the same images in A and B, {name} lacks {abbreviate(missing)}"
            raise DatasetError(problem, remedy="score both on the same images")


def check_same_rows(rows_a: NDArray[Any], rows_b: NDArray[Any], image_ids: Sequence[ImageId], unit: str) -> None:
    """DatasetError that names the first image whose ground truth differs.

    rows_a, rows_b: (N, K) integers, sorted by the first column: the index of the image in the order of
    `sort_image_ids`. image_ids: in any order. unit: name of what a row stands for.
    """
    shared = min(len(rows_a), len(rows_b))
    first = np.append(np.flatnonzero((rows_a[:shared] != rows_b[:shared]).any(axis=1)), shared)[0]
    images = [int(rows[first, 0]) for rows in (rows_a, rows_b) if first < len(rows)]
    if images:
        image_id = image_ids[argsort_image_ids(image_ids)[min(images)]]
        problem = f"expected the same ground truth {unit} in A and B, they differ"
        remedy = "score both against the same ground truth"
        raise DatasetError(problem, where=f"image {image_id!r}", remedy=remedy)


def _build_rows(columns: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """One dict per value, with None for NaN."""
    return [dict(zip(columns, map(none_if_nan, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _conclude(row: Mapping[str, Any], objects: int) -> str | None:
    if row["difference"] is None:
        return None
    if objects < MIN_OBJECTS:
        return FEW_OBJECTS
    if row["low"] is None or row["high"] is None:
        return FEW_IMAGES
    return BETTER if row["low"] > 0 else WORSE if row["high"] < 0 else UNCLEAR
