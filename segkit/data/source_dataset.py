"""A dataset of any layout that segkit reads, by the layout's name and where it lies; all else is derived."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from segkit.data.catalog import PANOPTIC_METRICS, Dataset, Record, register_dataset
from segkit.formats.registry import open_source
from segkit.formats.source import Source, SourceImage
from segkit.structures import CategorySet, PanopticSegmentation

SOURCE_FORMAT = "source"  # of records, see segkit.data.truth.PANOPTIC_READERS
OPEN_AT_ONCE = 8
Place = tuple[str, tuple[tuple[str, Any], ...]]  # layout and options, which travel with a record to other processes


def register_source(name: str, layout: str, **options: Any) -> None:
    """Register a dataset in one of the layouts of segkit.formats.registry.SOURCES.

    options: as the layout takes them (`root`, `split`, ...); paths are relative to the working directory. Nothing is
    read yet; `load_dataset` raises DatasetError for what is wrong with the files, ConfigError for the options.
    """
    register_dataset(name, lambda: load_source(name, layout, options))


def load_source(name: str, layout: str, options: Mapping[str, Any]) -> Dataset:
    """Find the dataset's files. It is judged by panoptic quality, mask AP and semantic IoU; without stuff by mask AP,
    without things by semantic IoU alone."""
    place: Place = (layout, tuple(sorted((key, _hashable(value)) for key, value in options.items())))
    source, _ = opened(place)
    records: list[Record] = [
        {
            "file_name": str(source.pictures / image.file_name),
            "image_id": image.image_id,
            "height": image.size_hw[0],
            "width": image.size_hw[1],
            "pan_seg_file_name": str(source.root),
            "pan_seg_format": SOURCE_FORMAT,
            "source": place,
        }
        for image in source.images
    ]
    metadata = {"image_root": str(source.pictures), "layout": layout}
    return Dataset(name, source.categories, _metrics(source.categories), records, metadata=metadata)


def read_source(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """The panoptic truth of a record of `load_source`."""
    source, images = opened(record["source"])
    return source.segmentation(images[record["image_id"]])


def source_picture(record: Record) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the picture of a record whose source makes it, of a slice of a volume say."""
    source, images = opened(record["source"])
    return source.picture(images[record["image_id"]])


@lru_cache(maxsize=OPEN_AT_ONCE)
def opened(place: Place) -> tuple[Source, dict[Any, SourceImage]]:
    """The source at a place, opened once in each process, and its images by id."""
    layout, options = place
    source = open_source(layout, dict(options))
    return source, {image.image_id: image for image in source.images}


def _metrics(categories: CategorySet) -> tuple[str, ...]:
    if not categories.things:
        return ("semantic_iou",)
    return PANOPTIC_METRICS if categories.stuff else ("mask_ap",)


def _hashable(value: Any) -> Any:
    return tuple(_hashable(one) for one in value) if isinstance(value, list) else value
