"""The masks of queries at the size of the output."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import QueryLogits


def compute_query_probs(queries: QueryLogits, row: int, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Resize the mask logits of a query, see QueryLogits, and take the sigmoid.

    Args:
        queries: the logits.
        row: of the query.
        size_hw: (height, width) of the output.

    Returns:
        (H, W) float32 in [0, 1].
    """
    height, width = queries.image_size
    logits = queries.logits[row]
    padded_hw = logits.shape[0] * queries.scale, logits.shape[1] * queries.scale
    image = _resize(_resize(logits, padded_hw)[:height, :width], size_hw)
    with np.errstate(over="ignore"):  # of exp: the probability is 0
        probs: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-image))
    return probs


def _resize(logits: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """As F.interpolate(mode="bilinear", align_corners=False) of torch."""
    if logits.shape == size_hw:
        return logits
    return cv2.resize(logits, size_hw[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
