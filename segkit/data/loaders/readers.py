"""The one loader of segkit's datasets: the images of a DatasetReader as Detectron2's records."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

from detectron2.structures import BoxMode

from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.data.loaders.coco import LISTED, CachedInstancesReader, CachedPanopticReader, get_entries
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.registry import READERS, open_reader
from segkit.structures import CategorySet, segmentation_to_rle
from segkit.utils.errors import ConfigError, DatasetError

# COCO's JSON files are large: their readers go through the annotation cache.
TRAINING_READERS: dict[str, type[DatasetReader]] = {
    **READERS,
    **{reader.format: reader for reader in (CachedPanopticReader, CachedInstancesReader)},
}
OPEN_AT_ONCE = 64
SAMPLE = 8  # images that are checked before training

log = logging.getLogger(__name__)


class ReaderKey(NamedTuple):
    """What a record holds of its reader: enough to open the reader again in another process.

    Attributes:
        format_name: key of TRAINING_READERS.
        options: the reader's options as JSON.
        has_map: see `DatasetReader.has_map`.
        channels: see `DatasetReader.channels`.
    """

    format_name: str
    options: str
    has_map: bool = True
    channels: int = 3


_open_readers: dict[tuple[str, str], tuple[DatasetReader, dict[Any, DatasetImage]]] = {}
_opening = Lock()


def load_reader_dataset(
    name: str,
    format_name: str,
    options: Mapping[str, Any],
    metrics: tuple[str, ...] | None = None,
    categories: CategorySet | None = None,
) -> Dataset:
    """Load a dataset in any format that segkit reads.

    Args:
        name: the dataset's name.
        format_name: key of TRAINING_READERS.
        options: the reader's options, such as root and split.
        metrics: keys of segkit.evaluation.EVALUATORS; None: those of `choose_metrics`.
        categories: what the files must hold; None: any.

    Returns:
        The dataset; annotations and maps are read image by image when they are used.

    Raises:
        ConfigError: the options cannot be written as JSON, or the reader does not take them.
        DatasetError: files are missing or contradict each other, or have other categories.
    """
    key = ReaderKey(format_name, encode_options(options))
    _open_readers.pop(key[:2], None)  # the files may have changed
    reader, _ = get_reader(key)
    if categories is not None:
        _check_categories(reader.categories, categories, options.get("json", reader.root))
    reader.check_files()
    _log_mistakes(name, reader)
    key = key._replace(has_map=reader.has_map, channels=reader.channels)
    records = [_build_record(reader, image, key) for image in reader.images]
    metadata = {"image_root": str(reader.image_root), "format": format_name, **getattr(reader, "metadata", {})}
    metrics = metrics or choose_metrics(reader)
    options = {"channels": reader.channels, "metadata": metadata}
    return Dataset(name, reader.categories, metrics, records, reader.instances_json, **options)


def get_reader(key: ReaderKey) -> tuple[DatasetReader, dict[Any, DatasetImage]]:
    """Open a reader, once in each process.

    Args:
        key: `record["reader"]`.

    Returns:
        The reader, and its images by image_id.

    Raises:
        ConfigError: the reader does not take the options.
        DatasetError: files are missing or contradict each other.
    """
    with _opening:
        entry = _open_readers.pop(key[:2], None)
        if entry is None:
            reader = open_reader(key.format_name, json.loads(key.options), readers=TRAINING_READERS)
            entry = reader, {image.image_id: image for image in reader.images}
        while len(_open_readers) >= OPEN_AT_ONCE:
            del _open_readers[next(iter(_open_readers))]  # the least recently used one
        _open_readers[key[:2]] = entry
        return entry


def find_image(key: ReaderKey, image_id: Any) -> tuple[DatasetReader, DatasetImage]:
    """Find an image of a record in its reader.

    Args:
        key: `record["reader"]`.
        image_id: `record["image_id"]`.

    Returns:
        The reader and the image.

    Raises:
        DatasetError: the files have changed and do not hold the image any more.
    """
    reader, images = get_reader(key)
    if image_id not in images:
        problem = f"the image {image_id!r} is not in the dataset any more"
        raise DatasetError(problem, where=reader.root, remedy="start again")
    return reader, images[image_id]


def get_common_reader(dataset: Dataset) -> tuple[DatasetReader | None, dict[Any, DatasetImage]]:
    """Get the reader of all records of a dataset.

    Args:
        dataset: any loaded dataset.

    Returns:
        The reader and its images by image_id; (None, {}) if a record has no reader or another one.
    """
    keys = {record.get("reader") for record in dataset.records}
    key = keys.pop() if len(keys) == 1 else None
    return get_reader(key) if key else (None, {})


class ReaderAnnotations(Sequence[Record]):
    """One image's annotations in Detectron2's form, made at each use: a million of them take no memory.

    Two are equal, and one equals a list, if the annotations are equal. A pickled one is small.

    Args:
        key: the image's reader.
        image_id: the image.
    """

    __slots__ = ("_image_id", "_key")

    def __init__(self, key: ReaderKey, image_id: Any) -> None:
        self._key, self._image_id = key, image_id

    def __iter__(self) -> Iterator[Record]:
        reader, image = find_image(self._key, self._image_id)
        contiguous_ids = reader.categories.thing_contiguous_ids
        return (_to_detectron2(entry, image.size_hw, contiguous_ids) for entry in reader.read_stored_annotations(image))

    def __len__(self) -> int:
        reader, image = find_image(self._key, self._image_id)
        return len(reader.read_stored_annotations(image))

    def __getitem__(self, index: Any) -> Any:
        return [*self][index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self])


class ReaderSegments(ReaderAnnotations):
    """One image's segments_info, as in its panoptic JSON, read at each use.

    Args:
        key: the image's reader, of the format coco-panoptic.
        image_id: the image.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Record]:
        _, image = find_image(self._key, self._image_id)
        return ({**entry} for entry in get_entries(image).segments_info)  # copies: users' mappers may change them

    def __len__(self) -> int:
        _, image = find_image(self._key, self._image_id)
        return len(get_entries(image).segments_info)


def build_panoptic_entries(reader: CachedPanopticReader, image: DatasetImage, key: ReaderKey) -> Record:
    """Build what only Detectron2's records of panoptic datasets hold, for its evaluators and for users' own mappers.

    Args:
        reader: the image's reader.
        image: one of its images.
        key: the key of `reader`.

    Returns:
        pan_seg_file_name, the path of the PNG, and segments_info, with the category ids of the JSON.
    """
    png_path = os.path.join(reader.masks, get_entries(image).png_name)
    return {"pan_seg_file_name": png_path, "segments_info": ReaderSegments(key, image.image_id)}


def choose_metrics(reader: DatasetReader) -> tuple[str, ...]:
    """Choose the metrics that suit a dataset's categories.

    Args:
        reader: gives the categories, and metrics of its format.

    Returns:
        Keys of segkit.evaluation.EVALUATORS: panoptic quality, mask AP and semantic IoU; mask AP if there is no stuff;
        semantic IoU if there are no things; and the metrics that the format adds.
    """
    usual = PANOPTIC_METRICS if reader.categories.stuff else ("mask_ap",)
    if not reader.categories.things:
        usual = ("semantic_iou",)
    return tuple(dict.fromkeys((*usual, *reader.metrics)))


def encode_options(options: Mapping[str, Any]) -> str:
    """Write a reader's options as JSON, paths as text.

    Args:
        options: by name.

    Returns:
        The JSON.

    Raises:
        ConfigError: a value has no form in JSON.
    """
    try:
        return json.dumps(options, default=os.fspath)
    except TypeError as error:
        raise ConfigError(f"expected options that a config file can hold: {error}") from None


def _build_record(reader: DatasetReader, image: DatasetImage, key: ReaderKey) -> Record:
    file_name, (height, width) = os.path.join(reader.image_root, image.file_name), image.size_hw
    record: Record = {"file_name": file_name, "image_id": image.image_id, "height": height, "width": width}
    record["reader"] = key
    if isinstance(reader, CachedPanopticReader):
        record |= build_panoptic_entries(reader, image, key)
    if reader.has_overlapping_masks and reader.categories.things:
        record["annotations"] = ReaderAnnotations(key, image.image_id)
    return record


def _to_detectron2(entry: Mapping[str, Any], size_hw: tuple[int, int], contiguous_ids: Mapping[int, int]) -> Record:
    segmentation = entry["segmentation"]
    if not isinstance(segmentation, list):  # Detectron2's mapper takes polygons or compressed RLE
        segmentation = segmentation_to_rle(segmentation, size_hw)
    return {
        "bbox": entry["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous_ids[entry["category_id"]],
        "iscrowd": entry["iscrowd"],
        "segmentation": segmentation,
    }


def _log_mistakes(name: str, reader: DatasetReader) -> None:
    """Log what is not read, and what is probably wrong with some images of the dataset: a line for each code."""
    for line in reader.skipped:
        log.info("%s: not read: %s", name, line)
    sample = reader.images[:: max(1, len(reader.images) // SAMPLE)][:SAMPLE]
    errors: dict[str, list[DatasetError]] = {}
    for image in sample:
        with contextlib.suppress(DatasetError):  # raised again when the image is used
            reader.check_annotation(image, lambda code, error: errors.setdefault(code, []).append(error))
    for code, found in errors.items():
        text = "%s: %s (%s; %d times in %d images that were checked); `segkit data check` shows all and the remedy"
        log.warning(text, name, found[0], code, len(found), len(sample))


def _check_categories(categories: CategorySet, expected: CategorySet, where: Any) -> None:
    expected_rows, rows = ({(c.category_id, c.name, c.isthing) for c in s.categories} for s in (expected, categories))
    if expected_rows != rows:
        raise DatasetError(
            f"expected the {len(expected_rows)} categories of this dataset, got {len(rows)}; they differ in "
            f"{sorted(expected_rows ^ rows)[:LISTED]}",
            where=where,
            remedy="register your own dataset by DATASETS.CUSTOM",
        )
