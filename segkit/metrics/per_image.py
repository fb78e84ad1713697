"""What a metric keeps of each image: added once, joined over shards, read back in a stated order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import DatasetError

T = TypeVar("T")
SHOWN_IDS = 5  # an error names at most so many images


class PerImage(Generic[T]):
    """image_id (int or string) -> what was kept, in the order of adding; every image at most once."""

    def __init__(self) -> None:
        self._kept: dict[int | str, T] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._kept

    def add(self, image_id: int | str, value: T) -> None:
        """Keep `value`; DatasetError where the image was added before, ValueError where the id is no int or string."""
        image_id = _plain(image_id)
        if image_id in self._kept:
            raise DatasetError(
                "expected every image once, got it a second time",
                where=f"image {image_id!r}",
                remedy="score each image once",
            )
        self._kept[image_id] = value

    def merge(self, other: PerImage[T]) -> None:
        """Append another shard's images; DatasetError, with nothing appended, where both hold an image."""
        twice = [image_id for image_id in other._kept if image_id in self._kept]
        if twice:
            raise DatasetError(
                f"expected shards without common images, got {named(twice)} in both",
                remedy="score each image in one shard only",
            )
        self._kept.update(other._kept)

    def ids(self) -> list[int | str]:
        """The image ids in the order of adding."""
        return list(self._kept)

    def sorted_ids(self) -> list[int | str]:
        """The image ids ascending, numbers before strings: an order that no way of adding or merging changes."""
        numbers = sorted(image_id for image_id in self._kept if not isinstance(image_id, str))
        return [*numbers, *sorted(image_id for image_id in self._kept if isinstance(image_id, str))]

    def in_order(self, image_order: Sequence[int | str]) -> list[tuple[int | str, T]]:
        """(image_id, value) of all images in this order; DatasetError unless it names exactly these, each once."""
        times = Counter(image_order)
        missing = [image_id for image_id in times if image_id not in self._kept]
        if missing:
            raise DatasetError(
                f"expected every image of image_order to be scored, got no prediction for {named(missing)}",
                remedy="score these images or take them out of image_order",
            )
        twice = [image_id for image_id in times if times[image_id] > 1]
        if twice:
            raise DatasetError(
                f"expected distinct ids in image_order, got {named(twice)} more than once",
                remedy="name each image once",
            )
        unlisted = [image_id for image_id in self._kept if image_id not in times]
        if unlisted:
            raise DatasetError(
                f"expected image_order to name every scored image, it lacks {named(unlisted)}",
                remedy="add these images to image_order or do not score them",
            )
        return [(image_id, self._kept[image_id]) for image_id in image_order]


def _plain(image_id: object) -> int | str:
    """The id as Python's own int or str: numpy's are not what JSON holds."""
    if isinstance(image_id, str):
        return str(image_id)
    if not isinstance(image_id, Integral) or isinstance(image_id, bool):
        raise ValueError(f"image_id must be an int or a string, got {image_id!r}")
    return int(image_id)


def argsort_image_ids(image_ids: Sequence[int | str]) -> NDArray[np.int64]:
    """(I,) int64 places of the images by ascending image_id, numbers before strings; DatasetError where one is there
    twice."""
    places: PerImage[int] = PerImage()
    for place, image_id in enumerate(image_ids):
        places.add(image_id, place)
    return np.array([place for _, place in places.in_order(places.sorted_ids())], dtype=np.int64)


def named(image_ids: Collection[int | str]) -> str:
    """`images 3, 'a', ... (7 in all)`, for messages."""
    shown = ", ".join(repr(image_id) for image_id in list(image_ids)[:SHOWN_IDS])
    more = f", ... ({len(image_ids)} in all)" if len(image_ids) > SHOWN_IDS else ""
    return f"{'image' if len(image_ids) == 1 else 'images'} {shown}{more}"
