"""Bootstrap over images for any metric that is a function of counts summed over images (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000
SEED = 0
LEVEL = 0.95
MIN_IMAGES = 2  # one image resampled is itself
BLOCK_CELLS = 2**21  # sample-image weights held at once: 16 MiB

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]


def resample(counts: FloatArray, statistic: Statistic, samples: int = SAMPLES, seed: int = SEED) -> FloatArray:
    """(samples, M) float64: the metric over images drawn with replacement, as many as there are.

    counts: (I, K) float64 of every image; statistic: (S, K) sums over images -> (S, M) numbers, NaN where undefined.
    The draws depend on seed, samples and I alone: two sets of counts of the same images, in the same order, are
    resampled alike, so that their difference is paired. Raises ValueError where there is no image or no sample.
    """
    images = len(counts)
    if not images:
        raise ValueError("counts must hold at least one image, got none")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    return np.concatenate([statistic(weights @ counts) for weights in _weights(images, samples, seed)])


def bounds(values: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """(M,) lower and upper ends of the percentile interval of (S, M) resampled values, over those that are defined;
    NaN where none is. level: share of the resamples between them, ValueError where not in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = np.full((2, values.shape[1]), np.nan)
    for column, resampled in enumerate(values.T):
        defined = resampled[~np.isnan(resampled)]
        if len(defined):
            low[column], high[column] = np.quantile(defined, ends)
    return low, high


def mean_over_present(values: FloatArray) -> FloatArray:
    """(S,) mean of the defined numbers in every row of (S, C), NaN where none is: how PQ and mIoU average classes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: FloatArray = np.nansum(values, axis=1) / (~np.isnan(values)).sum(axis=1)
    return mean


def _weights(images: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """(S, I) how often each resample draws each image, block by block."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // images)
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        drawn = generator.integers(images, size=(rows, images)) + np.arange(rows)[:, np.newaxis] * images
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
