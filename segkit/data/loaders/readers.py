"""A dataset of any layout that segkit reads, by the layout's name and where it lies; all else is derived."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

import numpy as np

from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.data.loaders.coco_instances import MadeAnnotations, to_detectron2
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.registry import open_reader
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import ConfigError

SOURCE_FORMAT = "source"  # of records, see segkit.data.ground_truth.PANOPTIC_READERS
OPEN_AT_ONCE = 64
Place = tuple[str, str]  # layout, and options as JSON: they travel with a record to other processes
_opened: dict[Place, tuple[DatasetReader, dict[Any, DatasetImage]]] = {}
_opening = Lock()


def load_source(
    name: str, format_name: str, options: Mapping[str, Any], metrics: tuple[str, ...] | None = None
) -> Dataset:
    """Find the dataset's files. metrics: by default panoptic quality, mask AP and semantic IoU; without stuff mask AP,
    without things semantic IoU; and with each what the layout adds, see Source.metrics."""
    place: Place = (format_name, _as_json(options))
    _opened.pop(place, None)  # the files may have changed
    source, _ = opened(place)
    records = [_record(source, image, place) for image in source.images]
    metadata = {"image_root": str(source.image_root), "format": format_name}
    return Dataset(name, source.categories, metrics or _metrics(source), records, metadata=metadata)


def read_source(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """The panoptic truth of a record of `load_source`."""
    source, images = opened(record["source"])
    return source.read_segmentation(images[record["image_id"]])


def read_source_image(record: Record) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the picture of a record whose source makes it, of a slice of a volume say."""
    source, images = opened(record["source"])
    return source.read_image(images[record["image_id"]])


def opened(place: Place) -> tuple[DatasetReader, dict[Any, DatasetImage]]:
    """The source at a place, opened once in each process, and its images by id."""
    with _opening:
        found = _opened.pop(place, None)
        if found is None:
            format_name, options = place
            source = open_reader(format_name, json.loads(options))
            found = source, {image.image_id: image for image in source.images}
        while len(_opened) >= OPEN_AT_ONCE:
            del _opened[next(iter(_opened))]  # the one that was not asked for the longest
        _opened[place] = found
        return found


class SourceAnnotations(MadeAnnotations):
    """Annotations of a source whose masks overlap."""

    __slots__ = ("_image_id", "_place")

    def __init__(self, place: Place, image_id: Any) -> None:
        self._place, self._image_id = place, image_id

    def __iter__(self) -> Iterator[Record]:
        source, images = opened(self._place)
        image, contiguous_ids = images[self._image_id], source.categories.thing_contiguous_ids
        return (to_detectron2(entry, image.size_hw, contiguous_ids) for entry in source.read_annotations(image))


def _record(source: DatasetReader, image: DatasetImage, place: Place) -> Record:
    record: Record = {
        "file_name": str(source.image_root / image.file_name),
        "image_id": image.image_id,
        "height": image.size_hw[0],
        "width": image.size_hw[1],
        "pan_seg_file_name": str(source.root),
        "pan_seg_format": SOURCE_FORMAT,
        "source": place,
    }
    if source.has_overlapping_masks and source.categories.things:
        record["annotations"] = SourceAnnotations(place, image.image_id)
    return record


def _metrics(source: DatasetReader) -> tuple[str, ...]:
    if not source.categories.things:
        return ("semantic_iou", *source.metrics)
    return (*(PANOPTIC_METRICS if source.categories.stuff else ("mask_ap",)), *source.metrics)


def _as_json(options: Mapping[str, Any]) -> str:
    try:
        return json.dumps(options, default=os.fspath)
    except TypeError as error:
        raise ConfigError(f"expected options that a config file can hold: {error}") from None
