"""Intensities of more than 8 bits, to be looked at: stretched between two percentiles of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (0.5, 99.5)  # what is beyond is clipped: a few hot pixels must not darken all others
BLOCK = 2**18  # values that are scaled at once: no picture or volume of float64
LEVELS = 2**16  # of 16-bit values
WHITE = 255

log = logging.getLogger(__name__)


def to_uint8(values: NDArray[Any], percentiles: Sequence[float] = PERCENTILES, where: object = "") -> NDArray[np.uint8]:
    """0 at the first percentile of the finite values and below, 255 at the second and above, rounded between.

    values: integers or floats of one axis or more, all of them on one scale. NaN and infinite ones become 0, with a
    warning in the log that names `where`. Where both percentiles are one value it is 0 like all below, and all above
    are 255: constant values become 0.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    shown = np.zeros(values.shape, dtype=np.uint8)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if finite.size < values.size:
        log.warning("%s: %d values are NaN or infinite, shown as the lowest", where, values.size - finite.size)
    if not finite.size:
        return shown
    low, high = _limits(finite, percentiles)
    if values.dtype == np.uint16 and values.size > LEVELS:
        table = _scaled(np.arange(LEVELS), low, high)
        table.take(values, out=shown, mode="clip")  # the default would buffer; every value has a level
        return shown
    step = max(1, BLOCK // values[0].size)
    for start in range(0, len(values), step):
        shown[start : start + step] = _scaled(values[start : start + step], low, high)
    return shown


def _limits(finite: NDArray[Any], percentiles: Sequence[float]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        limits: NDArray[np.float64] = np.percentile(finite, percentiles).astype(np.float64)
    if not np.isfinite(limits).all():  # numpy interpolates in the type of the values, which may overflow
        limits = np.percentile(finite, percentiles, method="nearest").astype(np.float64)
    return limits


def _scaled(values: NDArray[Any], low: np.float64, high: np.float64) -> NDArray[np.uint8]:
    wide = values.astype(np.float64)
    wide[~np.isfinite(wide)] = low
    raised, span = wide / 2 - low / 2, high / 2 - low / 2  # halves: the difference does not overflow
    share = np.clip(raised, 0, span) / span if span > 0 else raised > 0
    shown: NDArray[np.uint8] = np.rint(WHITE * share).astype(np.uint8)
    return shown
