"""One order of images that no way of collecting them changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.per_image import PerImage


def places_by_id(image_ids: Sequence[int | str]) -> NDArray[np.int64]:
    """(I,) int64 places of the images by ascending image_id, numbers before strings; DatasetError where one is there
    twice."""
    places: PerImage[int] = PerImage()
    for place, image_id in enumerate(image_ids):
        places.add(image_id, place)
    return np.array([place for _, place in places.in_order(places.sorted_ids())], dtype=np.int64)
