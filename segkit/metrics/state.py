"""The state that metrics share: one value per image, in a stated order, and how it is saved and read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

T = TypeVar("T")
Self = TypeVar("Self", bound="ImageTablesMetric[Any]")
Table = NDArray[np.void]
FloatArray = NDArray[np.float64]


class PerImage(Generic[T]):
    """A dict image_id (int or string) -> value in the order of adding, with every image at most once."""

    def __init__(self) -> None:
        self._values: dict[ImageId, T] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._values

    def add(self, image_id: ImageId, value: T) -> None:
        """Add an image; DatasetError if it was added before, ValueError if the id is neither int nor string."""
        image_id = _to_python_id(image_id)
        if image_id in self._values:
            problem, remedy = "expected every image once, got it a second time", "score each image once"
            raise DatasetError(problem, where=f"image {image_id!r}", remedy=remedy)
        self._values[image_id] = value

    def merge(self, other: PerImage[T]) -> None:
        """Append another shard's images; DatasetError, with nothing appended, if both hold an image."""
        common = [image_id for image_id in other._values if image_id in self._values]
        if common:
            problem = f"expected shards without common images, got {abbreviate(common)} in both"
            raise DatasetError(problem, remedy="score each image in one shard only")
        self._values.update(other._values)

    def ids(self) -> list[ImageId]:
        """The image ids in the order of adding."""
        return list(self._values)

    def in_order(self, image_order: Sequence[ImageId] | None = None) -> list[tuple[ImageId, T]]:
        """(image_id, value) of all images, by default as `sort_image_ids` sorts them.

        Raises DatasetError unless `image_order` names exactly these images, each once.
        """
        if image_order is None:
            image_order = sort_image_ids(self._values)
        times = Counter(image_order)
        missing = [image_id for image_id in times if image_id not in self._values]
        repeated = [image_id for image_id in times if times[image_id] > 1]
        unlisted = [image_id for image_id in self._values if image_id not in times]
        for problem, image_ids, remedy in (
            ("names images that were not scored", missing, "score these images or take them out of image_order"),
            ("names images more than once", repeated, "name each image once"),
            ("lacks scored images", unlisted, "add these images to image_order or do not score them"),
        ):
            if image_ids:
                raise DatasetError(f"image_order {problem}: {abbreviate(image_ids)}", remedy=remedy)
        return [(image_id, self._values[image_id]) for image_id in image_order]


def sort_image_ids(image_ids: Iterable[ImageId]) -> list[ImageId]:
    """Sort image ids independently of the order in which images were added or shards were merged.

    Args:
        image_ids: Ints and strings.

    Returns:
        Numbers ascending, then strings ascending.
    """
    return sorted(image_ids, key=lambda image_id: (isinstance(image_id, str), image_id))


def argsort_image_ids(image_ids: Sequence[ImageId]) -> NDArray[np.int64]:
    """(I,) int64 indices that sort the images as `sort_image_ids` does; DatasetError if an id occurs twice."""
    indices: PerImage[int] = PerImage()
    for index, image_id in enumerate(image_ids):
        indices.add(image_id, index)
    return np.array([index for _, index in indices.in_order()], dtype=np.int64)


def check_distinct_names(names: Sequence[str], owners: str) -> None:
    """DatasetError if two of the owners ("things", "classes") share a name: their results would share a key."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DatasetError(f"expected distinct names of {owners}, got {repeated} twice", remedy="rename one of them")


def percent(value: float) -> float | None:
    """A share in percent; None for NaN."""
    return None if math.isnan(value) else 100 * float(value)


def none_if_nan(value: float) -> float | None:
    """The value as Python's float; None for NaN."""
    return None if math.isnan(value) else float(value)


def mean_over_present(values: FloatArray) -> FloatArray:
    """(S,) mean of the defined values in every row of (S, C), NaN if none is: how PQ and AP average classes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: FloatArray = np.nansum(values, axis=1) / (~np.isnan(values)).sum(axis=1)
    return mean


def dump_categories(categories: CategorySet) -> list[dict[str, Any]]:
    """The COCO `categories` in the order of their file, which moves the last bits of panopticapi's means."""
    entries = {category["id"]: category for category in categories.to_coco()}
    return [entries[category_id] for category_id in categories.ids_in_file_order]


def join_tables(
    images: Iterable[Any], dtypes: Mapping[str, np.dtype[Any]]
) -> tuple[dict[str, Table], dict[str, NDArray[np.int64]]]:
    """Join the tables of all images: name -> rows of all images, and name -> number of rows of each.

    images: objects with one structured array per key of `dtypes`.
    """
    rows, lengths = {}, {}
    for name, dtype in dtypes.items():
        tables = [getattr(image, name) for image in images]
        # Byte by byte: numpy would compare the fields of each table with those of the next.
        parts = [np.zeros(0, dtype=np.uint8), *(np.ascontiguousarray(table).view(np.uint8) for table in tables)]
        rows[name] = np.concatenate(parts).view(dtype)
        lengths[name] = np.array([len(table) for table in tables], dtype=np.int64)
    return rows, lengths


@contextmanager
def reading_saved_counts(metric_name: str) -> Iterator[None]:
    """Turn whatever a block raises on a foreign state into one DatasetError."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, DatasetError) as error:
        raise DatasetError(f"expected saved counts of {metric_name}, got others ({error})") from error


class ImageTablesMetric(Generic[T]):
    """A metric whose counts are tables of each image: how they are joined, saved and read again.

    Attributes:
        counts_name: Name of the counts for messages.
        image_type: Type of an image's counts, built from its tables in the order of `dtypes`.
        dtypes: Attribute of `image_type` that holds a table -> dtype of its rows.
        categories: The categories.
    """

    counts_name: ClassVar[str]
    image_type: ClassVar[Callable[..., Any]]
    dtypes: ClassVar[Mapping[str, np.dtype[Any]]]

    def __init__(self, categories: CategorySet) -> None:
        """Start without images."""
        self.categories = categories
        self._images: PerImage[T] = PerImage()

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._images

    def add(self, image_id: ImageId, tables: T) -> None:
        """Add the counts of an image.

        Args:
            image_id: The image's id.
            tables: Its counts.

        Raises:
            DatasetError: The image was counted before.
        """
        self._images.add(image_id, tables)

    def merge(self: Self, other: Self) -> None:
        """Add another shard's images.

        Args:
            other: A metric with the same categories and options.

        Raises:
            DatasetError: Both hold an image.
            ValueError: The categories or the options differ.
        """
        if self.categories != other.categories or self._options() != other._options():
            same = f"the same categories{' and options' if self._options() else ''}"
            raise ValueError(f"other must have {same} as this {type(self).__name__}, they differ")
        self._images.merge(other._images)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, and arrays without Python objects: name -> rows of all images, `<name>_per_image` ->
            number of rows of each.
        """
        images = self._images.in_order()
        image_ids = [image_id for image_id, _ in images]
        header = {"categories": dump_categories(self.categories), "options": self._options(), "image_ids": image_ids}
        rows, lengths = join_tables([tables for _, tables in images], self.dtypes)
        return header, {**rows, **{f"{name}_per_image": numbers for name, numbers in lengths.items()}}

    @classmethod
    def from_state(cls: type[Self], header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts(cls.counts_name):
            metric = cls(CategorySet.from_coco(header["categories"], "categories"), **header["options"])
            columns = []
            for name, dtype in cls.dtypes.items():
                rows, lengths = arrays[name], arrays[f"{name}_per_image"]
                is_one_per_image = lengths.dtype.kind in "iu" and lengths.shape == (len(header["image_ids"]),)
                fits = is_one_per_image and rows.ndim == 1 and rows.dtype == dtype
                if not fits or (lengths < 0).any() or lengths.sum() != len(rows):
                    raise ValueError(f"{name} has another dtype or shape")
                columns.append(np.split(rows, np.cumsum(lengths))[:-1])
            for image_id, *tables in zip(header["image_ids"], *columns, strict=True):
                image = cls.image_type(*tables)
                metric._check_image(image)
                metric.add(image_id, image)
        return metric

    def _options(self) -> dict[str, Any]:
        """Arguments of the constructor except the categories."""
        return {}

    def _check_image(self, image: T) -> None:
        """ValueError if the tables of an image do not fit together or to the categories."""


def _to_python_id(image_id: object) -> ImageId:
    """The id as Python's own int or str: JSON cannot hold numpy's."""
    if isinstance(image_id, str):
        return str(image_id)
    if not isinstance(image_id, Integral) or isinstance(image_id, bool):
        raise ValueError(f"image_id must be an int or a string, got {image_id!r}")
    return int(image_id)
