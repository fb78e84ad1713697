"""Where semantic label maps come from, and what their values mean: all sources give maps of channels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, image_files, label_images, png
from segkit.formats.derive import relabel
from segkit.scoring.png_folders import find_png_folder
from segkit.structures import IGNORE_LABEL, THING_CHANNEL, CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import ErrorCollector
from segkit.utils.json_fields import Location
from segkit.utils.process_pool import map_and_collect_errors
from segkit.utils.text import abbreviate

IGNORED, UNKNOWN = -1, -2  # channels: a ground truth pixel that is left out, a value without a class
VALUES = 1 << 16  # of a 16-bit PNG
MAX_LABELS = 1000  # of files without named classes; with more labels they are no label maps
PNG_VALUES = ("category_id", "channel")

Channels = NDArray[np.integer[Any]]  # (H, W): 0..C-1, and `IGNORED` in the ground truth
Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelSpace:
    """What the values of files mean.

    Attributes:
        names: Of the channels 0..C-1.
        channel_by_category: Channel by category_id, as in a JSON.
        ignored: Category ids of a JSON that are left out.
        gt_channels: (65536,) int16 or int32 channel by the value of a ground truth PNG.
        pred_channels: (65536,) int16 or int32 channel by the value of a predicted PNG.
    """

    names: tuple[str, ...]
    channel_by_category: Mapping[int, int]
    ignored: frozenset[int]
    gt_channels: Channels
    pred_channels: Channels


def build_label_space(
    classes: CategorySet | Sequence[str] | Mapping[int, str],
    ignored: Collection[int] | None,
    thing_channels: str,
    png_values: str,
) -> LabelSpace:
    """The space of given classes, see `score_semantic`; ValueError for unknown thing_channels or png_values."""
    if png_values not in PNG_VALUES:
        raise ValueError(f"png_values must be one of {PNG_VALUES}, got {png_values!r}")
    if isinstance(classes, Mapping):
        channels = {value: channel for channel, value in enumerate(classes)}
        return _build_space(tuple(classes.values()), channels, ignored, channels)
    if not isinstance(classes, CategorySet):
        identity = {channel: channel for channel in range(len(classes))}
        return _build_space(tuple(classes), identity, ignored, identity)
    space = classes.build_semantic_space(thing_channels)
    channel_by_category = dict(space.channel_by_category)
    if thing_channels == "one":
        channel_by_category.setdefault(THING_CHANNEL, THING_CHANNEL)  # as Detectron2 writes all things
    values = (
        {channel: channel for channel in range(len(space.names))} if png_values == "channel" else channel_by_category
    )
    return _build_space(space.names, channel_by_category, ignored, values)


def scan_label_space(
    sources: Iterable[LabelFolder | MaskResults], ignored: Collection[int] | None, workers: int, errors: ErrorCollector
) -> LabelSpace:
    """The space with a class for every label in the files, named by its number, except those ignored in ground truth.

    Raises DatasetError if files cannot be read, or if there are more than MAX_LABELS labels.
    """
    ignored = {IGNORE_LABEL} if ignored is None else {*ignored}
    labels: set[int] = set()
    files = [(source, name) for source in sources for name in source.names]
    scan = map_and_collect_errors(lambda file: file[0].read_values(file[1]), files, errors, workers)
    for (source, name), values in scan:
        labels |= values - ignored if source.is_ground_truth else values
        if len(labels) > MAX_LABELS:
            problem = f"expected at most {MAX_LABELS} labels in all files, got more"
            raise DatasetError(problem, where=source.locate(name), remedy="are these label maps? Name the classes")
    channel_by_category = {label: channel for channel, label in enumerate(sorted(labels))}
    return _build_space(tuple(map(str, channel_by_category)), channel_by_category, ignored, channel_by_category)


def _build_space(
    names: tuple[str, ...],
    channel_by_category: Mapping[int, int],
    ignored: Collection[int] | None,
    values: Mapping[int, int],
) -> LabelSpace:
    """values: the channel by the value of a PNG."""
    fits_int16 = len(names) <= np.iinfo(np.int16).max
    pred_channels: Channels = np.full(VALUES, UNKNOWN, dtype=np.int16 if fits_int16 else np.int32)
    for value, channel in values.items():
        if 0 <= value < VALUES:
            pred_channels[value] = channel
    gt_channels = pred_channels.copy()
    left_out = {IGNORE_LABEL} - values.keys() if ignored is None else {*ignored}
    gt_channels[[value for value in left_out if 0 <= value < VALUES]] = IGNORED
    return LabelSpace(names, channel_by_category, frozenset(ignored or ()), gt_channels, pred_channels)


class LabelFolder:
    """Label PNGs in a folder; `names` are their paths in it, without the suffix."""

    categories = None  # the files do not name any

    def __init__(self, folder: str | Path, suffix: str, is_ground_truth: bool) -> None:
        self.paths = image_files.find_by_suffix(folder, suffix or ".png")
        self.names = [*self.paths]
        self.is_ground_truth = is_ground_truth

    def locate(self, name: str) -> object:
        """Place of an image's labels for error messages."""
        return self.paths[name]

    def get_image_id(self, name: str) -> ImageId:
        """The image's id: its name."""
        return name

    def read_values(self, name: str) -> set[int]:
        """The values in an image's PNG; DatasetError if it cannot be read."""
        return {*np.flatnonzero(np.bincount(png.read_labels(self.paths[name]).ravel())).tolist()}

    def read_channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int] | None = None) -> Channels:
        """The image's map, of its PNG's own size; DatasetError if it cannot be read or a value has no class."""
        labels = png.read_labels(self.paths[name])
        channel_by_category = space.gt_channels if self.is_ground_truth else space.pred_channels
        if labels.dtype == np.uint8:
            channels: NDArray[Any] = cv2.LUT(labels, channel_by_category[:256].reshape(1, 256))
        else:
            channels = channel_by_category.take(labels)
        if channels.min() == UNKNOWN:
            pixels = np.bincount(labels.ravel())
            unknown = [value for value in np.flatnonzero(pixels).tolist() if channel_by_category[value] == UNKNOWN]
            known = abbreviate(np.flatnonzero(channel_by_category != UNKNOWN).tolist())
            problem = f"expected the labels {known}, got {abbreviate(unknown)} in {pixels[unknown].sum()} pixels"
            remedies = "predict a class for every pixel", "ignore these labels, or name their classes"
            raise DatasetError(problem, where=self.paths[name], remedy=remedies[self.is_ground_truth])
        return channels


class PanopticMaps:
    """The ground truth in a COCO panoptic JSON and its PNGs; `names` are the images' file names without the suffix."""

    is_ground_truth = True

    def __init__(self, json_path: str | Path, folder: str | Path | None, suffix: str, errors: ErrorCollector) -> None:
        content = coco.read_panoptic(json_path, on_issue=errors.add_issue)
        self.categories = content.categories
        self.folder = Path()
        with errors.guard():
            self.folder = find_png_folder(content.path, folder, (record.png_name for record in content.records))
        self.pngs = FolderNames(self.folder)
        self.records = _index_by_name(((record.file_name, record) for record in content.records), suffix, content.path)
        self.names = [*self.records]

    def locate(self, name: str) -> object:
        """Place of an image's labels for error messages."""
        return Location(self.pngs.locate(self.records[name].png_name), self.records[name].image_id)

    def get_image_id(self, name: str) -> ImageId:
        """The image's id in the JSON."""
        return self.records[name].image_id

    def read_channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int] | None = None) -> Channels:
        """The image's map, void `IGNORED`; DatasetError if PNG and JSON disagree or a category has no class."""
        record = self.records[name]
        png_path, size_hw = self.pngs.locate(record.png_name), (record.height, record.width)
        infos, image_id = record.segments_info, record.image_id
        ground_truth = coco.read_segmentation(png_path, infos, self.categories, size_hw, image_id)
        segments = [segment for segment in ground_truth.segments if segment.category_id not in space.ignored]
        unknown = {segment.category_id for segment in segments} - space.channel_by_category.keys()
        if unknown:
            problem = f"expected categories that are among the classes, got {abbreviate(sorted(unknown))}"
            raise DatasetError(problem, where=self.locate(name), remedy="leave the classes to the panoptic JSON")
        # Channels are one up, so that 0, which all other pixels get, becomes IGNORED.
        channel_by_category = {s.segment_id: space.channel_by_category[s.category_id] - IGNORED for s in segments}
        channels: NDArray[np.int32] = relabel(ground_truth.segment_ids, channel_by_category, np.int32)
        channels += IGNORED
        return channels


class MaskResults:
    """Detectron2's sem_seg_predictions.json; `names` are its file names without the suffix."""

    is_ground_truth = False

    def __init__(self, path: Path, suffix: str, errors: ErrorCollector) -> None:
        self.path = path
        self.masks = _index_by_name(label_images.read_semantic_predictions(path, errors.add).items(), suffix, path)
        self.names = [*self.masks]

    def locate(self, name: str) -> object:
        """Place of an image's labels for error messages."""
        return Location(self.path, part="image", part_id=name)

    def read_values(self, name: str) -> set[int]:
        """The category ids of an image's masks."""
        return {*self.masks[name]}

    def read_channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int]) -> Channels:
        """The image's map, see `label_images.merge_class_masks`."""
        return label_images.merge_class_masks(self.masks[name], space.channel_by_category, size_hw, self.locate(name))


def _index_by_name(items: Iterable[tuple[str, Item]], suffix: str, path: Path) -> dict[str, Item]:
    """The items by file name without `suffix`, by default the extension; DatasetError if two names are equal."""
    item_by_name: dict[str, Item] = {}
    for file_name, item in items:
        posix = file_name.replace("\\", "/")
        name = posix.removesuffix(suffix) if suffix else splitext(posix)[0]
        if name in item_by_name:
            raise DatasetError(f"expected distinct names of images, got {name!r} twice", where=path)
        item_by_name[name] = item
    return item_by_name
