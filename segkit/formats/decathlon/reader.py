"""Medical Segmentation Decathlon (Antonelli et al. 2022, medicaldecathlon.com): NIfTI volumes, read slice by slice.

Volumes are turned to the closest RAS+ orientation first, so that an axis means the same in every file: 0 runs to the
patient's right (sagittal slices), 1 to the front (coronal), 2 to the head (axial). In a slice the first of the other
two axes runs to the right, the second upwards. `write_prediction` undoes both.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.decathlon import files
from segkit.formats.decathlon.files import Files, Volume, check_volume
from segkit.formats.decathlon.labels import BACKGROUND, categories_of, label_names
from segkit.formats.decathlon.nifti import read_voxels
from segkit.formats.decathlon.prediction import write_prediction
from segkit.formats.decathlon.slices import Labels, checked_labels, cut, segmentation_of, to_labels
from segkit.formats.intensities import PERCENTILES, to_uint8
from segkit.structures import ImageId, PanopticSegmentation
from segkit.utils import json_fields
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, try_read
from segkit.utils.text import abbreviate

__all__ = ["DecathlonReader", "Volume", "write_prediction"]

SPLITS = ("train", "val", "all", "test")
CACHE_BYTES = 2**27  # of slices that are kept: all volumes of a small task
LEAST_KEPT = 2  # files that are kept whatever their size: image and label of the last volume
RGB = 3


class DecathlonReader(DatasetReader):
    """One task of the Decathlon, each image one 2-D slice of one volume; the image_id is `<volume>_<slice>`.

    A DatasetImage's file_name is the name that the slice takes where it is written as a PNG: there is no such file in
    `pictures`, and `picture` makes it from the volume. Label 0 is background, stuff like the other labels.

    axis: 0, 1 or 2 of the volume in RAS+ orientation, along which it is cut.
    split: "train" and "val" share no volume, "all" is both, "test" is imagesTs, all void for it has no labels.
    held_out: names of the volumes of "val"; without them it is a `val_share` of the volumes, those whose names have the
    lowest SHA-256 (at least one, and not all of them, unless the share is 0 or 1; of a single one, none). Nothing in
    the files says which volumes are of one patient: where there are several, name them in held_out.
    labels: {label: name}; without it dataset.json's, and where there is none, the labels that the volumes hold.
    things: names of the labels whose connected pieces (8 neighbours) in a slice are instances.
    modalities: one to three channels of a 4-D volume to be R, G, B (the last is repeated); the first three by default.
    percentiles: of the intensities of a modality of a volume, they become 0 and 255; what is outside is clipped, voxels
    that are NaN or infinite become 0, with a warning in the log; a constant volume is 0.
    keep_empty: False leaves out the slices with nothing but background, and reads all labels of the split for it.
    tell: gets what is wrong with single volumes, which are then left out. skipped: lines on volumes that dataset.json
    does not list.

    Headers are checked at once, voxels when they are read; the last ones stay in memory, `CACHE_BYTES` or one volume.
    Raises ConfigError for options that make no sense, DatasetError where a file is missing or damaged, a volume has
    more than `MAX_VOXELS` or not the voxels its header speaks of, the label is not on the image's grid or not among
    `labels`.
    """

    format = "decathlon"
    metrics = ("volume_dice",)

    def __init__(
        self,
        root: str | Path,
        *,
        axis: int = 2,
        split: str = "all",
        val_share: float = 0.2,
        held_out: Collection[str] = (),
        labels: Mapping[int | str, str] | None = None,
        things: Collection[str] = (),
        modalities: Sequence[int] = (),
        percentiles: Sequence[float] = PERCENTILES,
        keep_empty: bool = True,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        _check_options(axis, split, val_share, modalities, percentiles, keep_empty, held_out=held_out, things=things)
        self.root = Path(root)
        self.image_root = self.root / ("imagesTs" if split == "test" else "imagesTr")
        self.axis, self._modalities, self._percentiles = axis, tuple(modalities), tuple(percentiles)
        self._kept: dict[tuple[str, Path], NDArray[Any]] = {}
        self._damaged: dict[tuple[str, Path], DatasetError] = {}
        self._reading = Lock()
        table, faults = files.load_table(self.root), _Faults(on_issue)
        no_training = split == "test" and (labels or table)
        listed = [] if no_training else files.labelled_files(self.root, table, faults)
        training = files.that_are_there(listed, faults)
        names = label_names(labels, table, self.root)
        if names is None:
            training, names = self._found_labels(training, faults)
        self.categories = categories_of(names, things, self.root)
        if split == "test":
            listed = files.unlabelled_files(self.root, table, faults)
            wanted = files.that_are_there(listed, faults)
        else:
            wanted = files.of_split(training, listed, split, val_share, held_out)
        self.skipped = files.unlisted(listed)
        self._open(wanted, keep_empty, faults)
        if not self.images and not faults.told:
            remedy = "choose another split, val_share or keep_empty"
            raise DatasetError(f"the split {split!r} has no slice", where=self.root, remedy=remedy)

    def locate_slice(self, image: DatasetImage) -> tuple[Volume, int]:
        """The volume of a slice, and which one it is, from 0."""
        return self._places[image.image_id]

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, intensities between the percentiles of the volume; DatasetError as the class says."""
        volume, index = self.locate_slice(image)
        channels = self._keep("channels", volume.image_path, self._read_channels)[index]
        rgb: NDArray[np.uint8] = channels.take(np.minimum(range(RGB), channels.shape[-1] - 1), axis=-1)
        return rgb

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """Stuff and background are one segment each, things one per connected piece; numbered by label, then by first
        pixel. All void where the volume has no label. Raises DatasetError as the class says."""
        volume, index = self.locate_slice(image)
        if volume.label_path is None:
            return PanopticSegmentation(np.zeros(image.size_hw, dtype=np.int32), ())
        return segmentation_of(self._labels(volume.label_path)[index], self.categories)

    def _found_labels(self, training: Sequence[Files], on_issue: IssueHandler) -> tuple[list[Files], dict[int, str]]:
        """The volumes whose labels can be read, and the names of all labels in them."""
        found = {volume: try_read(on_issue, "annotation-unreadable", self._label_values, volume) for volume in training}
        labels = sorted({BACKGROUND}.union(*(values or () for values in found.values())) - {BACKGROUND})
        return [v for v in training if found[v] is not None], {label: f"label {label}" for label in labels}

    def _label_values(self, volume: Files) -> set[int]:
        path = volume.label_path
        return set() if path is None else {*np.unique(self._keep("labels", path, self._read_labels)).tolist()}

    def _open(self, wanted: Sequence[Files], keep_empty: bool, on_issue: IssueHandler) -> None:
        """Set `volumes` and `images`."""
        self._places: dict[ImageId, tuple[Volume, int]] = {}
        volumes: list[Volume] = []
        images: list[DatasetImage] = []
        for volume in (check_volume(each, on_issue) for each in wanted):
            if volume is None:
                continue
            slices = try_read(on_issue, "annotation-unreadable", self._slices, volume, keep_empty)
            if slices is not None:
                volumes.append(volume)
                images += slices.values()
                self._places.update({image.image_id: (volume, index) for index, image in slices.items()})
        self.volumes, self.images = tuple(volumes), tuple(images)

    def _slices(self, volume: Volume, keep_empty: bool) -> dict[int, DatasetImage]:
        width, height = (size for axis, size in enumerate(volume.size_xyz) if axis != self.axis)
        slices = {}
        for index in range(volume.size_xyz[self.axis]):
            if keep_empty or volume.label_path is None or self._labels(volume.label_path)[index].any():
                image_id = f"{volume.name}_{index:03d}"
                slices[index] = DatasetImage(image_id, f"{image_id}.png", (height, width))
        return slices

    def _labels(self, path: Path) -> Labels:
        return self._keep("labels", path, lambda path: checked_labels(self._read_labels(path), self.categories, path))

    def _read_labels(self, path: Path) -> Labels:
        return np.ascontiguousarray(cut(to_labels(read_voxels(path)[..., 0], path), self.axis))

    def _read_channels(self, path: Path) -> NDArray[np.uint8]:
        """(slices, H, W, 1 to 3) uint8."""
        voxels = read_voxels(path)
        chosen = self._modalities or range(min(RGB, voxels.shape[-1]))
        if max(chosen) >= voxels.shape[-1]:
            problem = f"expected modalities below {voxels.shape[-1]}, which the volume has, got {abbreviate(chosen)}"
            raise ConfigError(problem, where=path)
        channels = [to_uint8(voxels[..., modality], self._percentiles, path) for modality in chosen]
        return np.ascontiguousarray(cut(np.stack(channels, axis=-1), self.axis))

    def _keep(self, kind: str, path: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any]:
        """What `read` makes of the file, from memory where it was used of late; so is the error that it raises."""
        with self._reading:  # threads ask for slices of one volume: it is read once
            if (kind, path) in self._damaged:
                raise copy(self._damaged[kind, path])
            content = self._kept.pop((kind, path), None)
            if content is None:
                try:
                    content = read(path)
                except DatasetError as error:
                    self._damaged[kind, path] = copy(error)  # without the traceback, whose frames hold voxels
                    raise
            self._kept[kind, path] = content
            while len(self._kept) > LEAST_KEPT and sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES:
                del self._kept[next(iter(self._kept))]
            return content


class _Faults:
    """A `on_issue` that knows whether there was something to tell."""

    def __init__(self, on_issue: IssueHandler) -> None:
        self.on_issue, self.told = on_issue, False

    def __call__(self, code: str, error: DatasetError) -> None:
        self.told = True
        self.on_issue(code, error)


def _check_options(
    axis: Any, split: Any, val_share: Any, modalities: Any, percentiles: Any, keep_empty: Any, **names: Any
) -> None:
    def check(right: bool, key: str, expected: str, got: object) -> None:
        if not right:
            raise ConfigError(f"expected `{key}` to be {expected}, got {reprlib.repr(got)}")

    def is_list(value: Any, kinds: tuple[type, ...], of: type = Sequence) -> bool:
        listed = isinstance(value, of) and not isinstance(value, str)
        return listed and all(type(part) in kinds for part in value)

    check(type(axis) is int and axis in (0, 1, 2), "axis", "0, 1 or 2", axis)
    check(split in SPLITS, "split", f"one of {', '.join(SPLITS)}", split)
    check(type(val_share) in json_fields.NUMBER and 0 <= val_share <= 1, "val_share", "in 0..1", val_share)
    check(type(keep_empty) is bool, "keep_empty", "true or false", keep_empty)
    for key, value in names.items():
        check(is_list(value, json_fields.TEXT, Collection), key, "a list of names", value)
    three = is_list(modalities, json_fields.INTEGER) and len(modalities) <= RGB and min(modalities, default=0) >= 0
    check(three, "modalities", "a list of up to three numbers from 0", modalities)
    two = is_list(percentiles, json_fields.NUMBER) and len(percentiles) == 2
    rising = two and 0 <= percentiles[0] < percentiles[1] <= 100
    check(rising, "percentiles", "two rising numbers in 0..100", percentiles)
