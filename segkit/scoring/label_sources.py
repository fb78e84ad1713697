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
from segkit.structures import IGNORE_LABEL, THING_CHANNEL, CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import ErrorCollector
from segkit.utils.json_fields import Location
from segkit.utils.process_pool import ordered_map
from segkit.utils.text import abbreviate

IGNORED, UNKNOWN = -1, -2  # channels: a true pixel to be left out, a value without a class
VALUES = 1 << 16  # that a PNG of 16 bits may hold
MOST_FOUND = 1000  # labels that files without named classes may hold; where there are more, they are no classes
PNG_VALUES = ("category_id", "channel")

Channels = NDArray[np.integer[Any]]  # (H, W): 0..C-1, and in the ground truth `IGNORED`
Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelSpace:
    """names: of the channels 0..C-1. channel_of: by category_id, as in a JSON. ignored: category ids of a
    JSON that are left out. gt_channels, pred_channels: (VALUES,) int16 or int32, by the value of a PNG."""

    names: tuple[str, ...]
    channel_of: Mapping[int, int]
    ignored: frozenset[int]
    gt_channels: Channels
    pred_channels: Channels


def build_label_space(
    classes: CategorySet | Sequence[str], ignored: Collection[int] | None, thing_channels: str, png_values: str
) -> LabelSpace:
    """The space of given classes, see `score_semantic`; ValueError for another thing_channels or png_values."""
    if png_values not in PNG_VALUES:
        raise ValueError(f"png_values must be one of {PNG_VALUES}, got {png_values!r}")
    if not isinstance(classes, CategorySet):
        names = tuple(classes)
        return _space(names, {channel: channel for channel in range(len(names))}, ignored)
    space = classes.build_semantic_space(thing_channels)
    channel_of = dict(space.channel_of)
    if thing_channels == "one":
        channel_of.setdefault(THING_CHANNEL, THING_CHANNEL)  # as Detectron2 writes all things
    values = {channel: channel for channel in range(len(space.names))} if png_values == "channel" else channel_of
    return _space(space.names, channel_of, ignored, values)


def scan_label_space(
    sources: Iterable[LabelFolder | MaskResults],
    ignored: Collection[int] | None,
    workers: int,
    problems: ErrorCollector,
) -> LabelSpace:
    """A class for every label that the files hold, named by its number; labels ignored in the ground truth are none.

    Raises DatasetError that tells what cannot be read, or where there are more than MOST_FOUND.
    """
    ignored = {IGNORE_LABEL} if ignored is None else {*ignored}
    found: set[int] = set()
    for source in sources:
        for name, values in zip(source.names, ordered_map(source.values, source.names, workers), strict=True):
            if isinstance(values, DatasetError):
                problems.add(values)
                continue
            found |= values - ignored if source.is_ground_truth else values
            if len(found) > MOST_FOUND:
                problem = f"expected at most {MOST_FOUND} labels in all files, got more"
                raise DatasetError(problem, where=source.place(name), remedy="are these label maps? Name the classes")
    problems.check()
    labels = sorted(found)
    return _space(tuple(map(str, labels)), {label: channel for channel, label in enumerate(labels)}, ignored)


def _space(
    names: tuple[str, ...],
    channel_of: Mapping[int, int],
    ignored: Collection[int] | None,
    channel_of_value: Mapping[int, int] | None = None,
) -> LabelSpace:
    values = channel_of if channel_of_value is None else channel_of_value
    left_out = {IGNORE_LABEL} - values.keys() if ignored is None else {*ignored}
    predicted = np.full(VALUES, UNKNOWN, dtype=np.int16 if len(names) <= np.iinfo(np.int16).max else np.int32)
    for value, channel in values.items():
        if 0 <= value < VALUES:
            predicted[value] = channel
    true = predicted.copy()
    true[[value for value in left_out if 0 <= value < VALUES]] = IGNORED
    return LabelSpace(names, channel_of, frozenset(ignored or ()), true, predicted)


class LabelFolder:
    """Label PNGs in a folder; `names` are their paths in it, without the suffix."""

    categories = None  # the files do not say

    def __init__(self, folder: str | Path, suffix: str, is_ground_truth: bool) -> None:
        self.paths = image_files.find_by_suffix(folder, suffix or ".png")
        self.names = [*self.paths]
        self.is_ground_truth = is_ground_truth

    def place(self, name: str) -> object:
        """Where an image's labels are, for messages."""
        return self.paths[name]

    def values(self, name: str) -> set[int] | DatasetError:
        """The values that an image's PNG holds."""
        try:
            labels = png.read_labels(self.paths[name])
        except DatasetError as error:
            return error
        return {*np.flatnonzero(np.bincount(labels.ravel())).tolist()}

    def channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int] | None = None) -> Channels:
        """The image's map, of its PNG's own size; DatasetError where it cannot be read or a value has no class."""
        labels = png.read_labels(self.paths[name])
        channel_of = space.gt_channels if self.is_ground_truth else space.pred_channels
        if labels.dtype == np.uint8:
            channels: NDArray[Any] = cv2.LUT(labels, channel_of[:256].reshape(1, 256))
        else:
            channels = channel_of.take(labels)
        if channels.min() == UNKNOWN:
            self._refuse(labels, channel_of, name)
        return channels

    def _refuse(self, labels: png.Labels, channel_of: Channels, name: str) -> None:
        pixels = np.bincount(labels.ravel())
        unknown = [value for value in np.flatnonzero(pixels).tolist() if channel_of[value] == UNKNOWN]
        known = abbreviate(np.flatnonzero(channel_of != UNKNOWN).tolist())
        problem = f"expected the labels {known}, got {abbreviate(unknown)} in {pixels[unknown].sum()} pixels"
        remedy = (
            "ignore these labels, or name their classes" if self.is_ground_truth else "predict a class for every pixel"
        )
        raise DatasetError(problem, where=self.paths[name], remedy=remedy)


class PanopticMaps:
    """The ground truth in a COCO panoptic JSON and its PNGs; `names` are the images' file names without the suffix."""

    is_ground_truth = True

    def __init__(self, json_path: str | Path, folder: str | Path | None, suffix: str, problems: ErrorCollector) -> None:
        content = coco.read_panoptic(json_path, on_issue=problems.add)
        self.categories = content.categories
        self.path = content.path
        self.folder = content.path.with_suffix("") if folder is None else Path(folder)
        if not self.folder.is_dir():
            problems.add(DatasetError("no such folder of PNGs", where=self.folder, remedy="name it"))
        self.records = _by_name(((record.file_name, record) for record in content.records), suffix, content.path)
        self.names = [*self.records]

    def place(self, name: str) -> object:
        """Where an image's labels are, for messages."""
        return Location(self.folder / self.records[name].png_name, self.records[name].image_id)

    def channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int] | None = None) -> Channels:
        """The image's map, void `IGNORED`; DatasetError where PNG and JSON disagree or a category has no class."""
        record = self.records[name]
        ground_truth = coco.read_segmentation(
            self.folder / record.png_name,
            record.segments_info,
            self.categories,
            (record.height, record.width),
            record.image_id,
        )
        wanted = [segment for segment in ground_truth.segments if segment.category_id not in space.ignored]
        unknown = {segment.category_id for segment in wanted} - space.channel_of.keys()
        if unknown:
            problem = f"expected categories that are among the classes, got {abbreviate(sorted(unknown))}"
            raise DatasetError(problem, where=self.place(name), remedy="leave the classes to the panoptic JSON")
        # Channels one up, so that 0, what all other pixels get, becomes IGNORED.
        channels: Channels = relabel(
            ground_truth.segment_ids,
            {s.segment_id: space.channel_of[s.category_id] - IGNORED for s in wanted},
            np.int32,
        )
        channels += IGNORED
        return channels


class MaskResults:
    """Detectron2's sem_seg_predictions.json; `names` are its file names without the suffix."""

    is_ground_truth = False

    def __init__(self, path: Path, suffix: str, problems: ErrorCollector) -> None:
        self.path = path
        self.masks = _by_name(label_images.read_semantic_predictions(path, problems.add).items(), suffix, path)
        self.names = [*self.masks]

    def place(self, name: str) -> object:
        """Where an image's labels are, for messages."""
        return Location(self.path, part="image", part_id=name)

    def values(self, name: str) -> set[int] | DatasetError:
        """The category ids of an image's masks."""
        return {*self.masks[name]}

    def channels(self, name: str, space: LabelSpace, size_hw: tuple[int, int]) -> Channels:
        """The image's map, see `label_images.build_semantic_map`."""
        return label_images.build_semantic_map(self.masks[name], space.channel_of, size_hw, self.place(name))


def _by_name(items: Iterable[tuple[str, Item]], suffix: str, path: Path) -> dict[str, Item]:
    """The items by file name without its end: `suffix`, or the extension; DatasetError where two are the same."""
    named: dict[str, Item] = {}
    for file_name, item in items:
        posix = file_name.replace("\\", "/")
        name = posix.removesuffix(suffix) if suffix else splitext(posix)[0]
        if name in named:
            raise DatasetError(f"expected distinct names of images, got {name!r} twice", where=path)
        named[name] = item
    return named
