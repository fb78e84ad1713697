"""Medical Segmentation Decathlon (Antonelli et al. 2022, medicaldecathlon.com): NIfTI volumes, read slice by slice.

Volumes are turned to the closest RAS+ orientation first, so that an axis means the same in every file: 0 runs to the
patient's right (sagittal slices), 1 to the front (coronal), 2 to the head (axial). In a slice the first of the other
two axes runs right, the second upwards. `write_prediction` undoes both.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats.bands import to_rgb
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.decathlon import files, nnunet
from segkit.formats.decathlon.files import TABLE, Volume, VolumeFiles, check_volume
from segkit.formats.decathlon.nifti import MAX_LABEL, read_header, read_voxels, to_slices
from segkit.formats.decathlon.options import (
    BACKGROUND,
    build_categories,
    check_options,
    find_tolerance,
    read_label_names,
)
from segkit.formats.image_io import PERCENTILES, stretch_to_uint8
from segkit.structures import CategorySet, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, try_read
from segkit.utils.text import abbreviate

CACHE_BYTES = 2**27  # of slices in memory: all volumes of a small task
MIN_CACHED = 2  # files in memory whatever their size: image and label of the last volume

Labels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


class DecathlonReader(DatasetReader):
    """One task of the Decathlon, or a dataset of nnU-Net (see `nnunet`).

    Each image is a 2-D slice of a volume, its image_id `<volume>_<slice>`.

    A DatasetImage's file_name is the name of the slice if it is written as a PNG. `image_root` holds no such file:
    `read_image` makes the slice from the volume. Label 0 is background, which is stuff as the other labels are.

    Headers are checked at once, voxels when they are read. The last slices stay in memory: `CACHE_BYTES`, or one
    volume. `skipped` has lines on volumes that dataset.json does not list. Volumes of up to three modalities are read
    as RGB by default (INPUT.FORMAT), others by all their modalities.

    Args:
        root: Folder of the task, with imagesTr, labelsTr, imagesTs and usually dataset.json.
        axis: 0, 1 or 2, the axis of the volume in RAS+ orientation along which it is cut.
        split: "train" and "val" share no volume, "all" is both; "test" is imagesTs, all void since it has no labels.
        val_share: Share of the volumes in "val", 0..1: those whose names have the lowest SHA-256. It is at least one
            volume and never all of them, unless the share is 0 or 1; of a single volume, none.
        held_out: Names of the volumes of "val", in place of `val_share`. The files do not say which volumes belong to
            one patient: if a patient has several, name them here.
        labels: Label -> name; by default those of dataset.json, and without it the labels found in the volumes. Of
            nnU-Net's dataset.json the label `ignore` becomes void.
        things: Names of the labels whose connected pieces (8 neighbours) in a slice are instances.
        modalities: Channels of a 4-D volume, or of nnU-Net's files, from 0, in the order in which they are read. By
            default all. The first three are shown as R, G, B; the last of fewer is repeated.
        percentiles: Two numbers in 0..100. These percentiles of a volume's modality become 0 and 255; values outside
            are clipped. NaN and infinite voxels become 0 with a warning in the log; a constant volume is 0.
        keep_empty: Whether slices that hold only background are images; False reads all labels of the split.
        label_affine: "own", or "image" if labels have their image's affine, whatever their own is.
        tolerance_mm: Of the metric NSD. By default that of the Decathlon's task after which the folder is named.
            Without a tolerance there is no NSD.
        on_issue: Gets the issues of single volumes, which are then left out. Raises by default.

    Raises:
        ConfigError: An option is invalid.
        DatasetError: A file is missing or damaged, a volume has more voxels than `SEGKIT_MAX_VOXELS` or than its header
            says, or a label volume is not on the image's grid or holds a label that is not among `labels`.
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
        label_affine: str = files.OWN,
        tolerance_mm: float | None = None,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        check_options(axis, split, val_share, held_out, things, modalities, percentiles, keep_empty)
        if label_affine not in (files.OWN, files.IMAGE):
            raise ConfigError(f"expected `label_affine` to be own or image, got {reprlib.repr(label_affine)}")
        self._label_affine = label_affine
        self.root = Path(root)
        self.tolerance_mm = find_tolerance(tolerance_mm, self.root)
        self.image_root = self.root / ("imagesTs" if split == "test" else "imagesTr")
        self.axis, self._modalities, self._percentiles = axis, tuple(modalities), tuple(percentiles)
        self._cached: dict[tuple[str, Path], NDArray[Any]] = {}
        self._errors: dict[tuple[str, Path], DatasetError] = {}
        self._lock = Lock()
        reported: list[str] = []

        def report(code: str, error: DatasetError) -> None:
            reported.append(code)
            on_issue(code, error)

        table = files.load_table(self.root)
        needs_training = split != "test" or not (labels or table)
        listed = files.list_volumes(self.root, table, False, report) if needs_training else []
        training = files.drop_missing(listed, report)
        counts = nnunet.describe_count(table, len(listed), self.root / TABLE) if needs_training else ()
        names = read_label_names(labels, table, self.root)
        if names is None:
            training, names = self._find_labels(training, report)
        ignored = [label for label, name in names.items() if name == nnunet.IGNORE and label != BACKGROUND]
        self._ignored = ignored[0] if ignored and labels is None else None
        if self._ignored is not None:
            del names[self._ignored]
        self.categories = build_categories(names, things, self.root)
        if split == "test":
            listed = files.list_volumes(self.root, table, True, report)
            selected = files.drop_missing(listed, report)
        else:
            selected = files.select_split(training, listed, split, val_share, held_out)
        self._open(selected, keep_empty, report)
        counts_of_volumes = (volume.modalities for volume in self.volumes)
        self.channels = len(self._modalities) or max(counts_of_volumes, default=1)
        self.skipped = (*files.describe_unlisted(listed), *counts)
        if not self.images and not reported:
            remedy = "choose another split, val_share or keep_empty"
            raise DatasetError(f"the split {split!r} has no slice", where=self.root, remedy=remedy)

    def locate_slice(self, image: DatasetImage) -> tuple[Volume, int]:
        """Find the volume of a slice.

        Args:
            image: One of `images`.

        Returns:
            The volume, and the index of the slice in it, from 0.
        """
        return self._slices[image.image_id]

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class. Intensities are scaled between the percentiles of the volume."""
        return to_rgb(self._read_slice(image))

    def read_channels(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class. Each modality is scaled between its own percentiles of the volume."""
        pixels = self._read_slice(image)
        if pixels.shape[-1] != self.channels:
            problem = f"expected {self.channels} modalities, as other volumes have, got {pixels.shape[-1]}"
            where = self.locate_slice(image)[0].image_path
            raise DatasetError(problem, where=where, remedy="choose those that all volumes have by `modalities`")
        return pixels

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. Segments are numbered by label, then by first pixel; all void if the volume has no label."""
        volume, index = self.locate_slice(image)
        if volume.label_path is None:
            return PanopticSegmentation(np.zeros(image.size_hw, dtype=np.int32), ())
        return _build_segmentation(self._get_labels(volume.label_path, volume.image_path)[index], self.categories)

    def _read_slice(self, image: DatasetImage) -> NDArray[np.uint8]:
        """(H, W, modalities of the volume, or those that were chosen)."""
        volume, index = self.locate_slice(image)
        slices: NDArray[np.uint8] = self._cache("channels", volume.image_path, lambda _: self._read_modalities(volume))
        pixels: NDArray[np.uint8] = slices[index]
        return pixels

    def _find_labels(
        self, training: Sequence[VolumeFiles], on_issue: IssueHandler
    ) -> tuple[list[VolumeFiles], dict[int, str]]:
        """The volumes whose labels can be read, and the names of all labels in them."""
        code = "annotation-unreadable"
        values = {volume: try_read(on_issue, code, self._read_label_values, volume) for volume in training}
        labels = sorted({BACKGROUND}.union(*(labels or () for labels in values.values())) - {BACKGROUND})
        return [v for v in training if values[v] is not None], {label: f"label {label}" for label in labels}

    def _read_label_values(self, volume: VolumeFiles) -> set[int]:
        path = volume.label_path
        if path is None:
            return set()
        return {
            *np.unique(self._cache("labels", path, lambda path: self._read_labels(path, volume.image_path))).tolist()
        }

    def _open(self, selected: Sequence[VolumeFiles], keep_empty: bool, on_issue: IssueHandler) -> None:
        """Set `volumes` and `images`."""
        self._slices: dict[ImageId, tuple[Volume, int]] = {}
        volumes: list[Volume] = []
        images: list[DatasetImage] = []
        for volume in filter(None, (check_volume(v, self._label_affine, on_issue) for v in selected)):
            slices = try_read(on_issue, "annotation-unreadable", self._list_slices, volume, keep_empty)
            if slices is not None:
                volumes.append(volume)
                images += slices.values()
                self._slices.update({image.image_id: (volume, index) for index, image in slices.items()})
        self.volumes, self.images = tuple(volumes), tuple(images)

    def _list_slices(self, volume: Volume, keep_empty: bool) -> dict[int, DatasetImage]:
        width, height = (size for axis, size in enumerate(volume.size_xyz) if axis != self.axis)
        slices = {}
        for index in range(volume.size_xyz[self.axis]):
            if (
                keep_empty
                or volume.label_path is None
                or self._get_labels(volume.label_path, volume.image_path)[index].any()
            ):
                image_id = f"{volume.name}_{index:03d}"
                slices[index] = DatasetImage(image_id, f"{image_id}.png", (height, width))
        return slices

    def _get_labels(self, path: Path, image_path: Path) -> Labels:
        return self._cache("labels", path, lambda path: self._read_known_labels(path, image_path))

    def _read_known_labels(self, path: Path, image_path: Path) -> Labels:
        """The labels of a volume by slices; DatasetError if one is not a category."""
        labels = self._read_labels(path, image_path)
        table = np.zeros(MAX_LABEL + 1, dtype=bool)
        table[[*self.categories.isthing_by_id]] = True
        if self._ignored is not None:
            table[self._ignored] = True
        is_known = table.take(labels)
        if not is_known.all():
            expected, got = self.categories.isthing_by_id, np.unique(labels[~is_known]).tolist()
            problem = f"expected labels among {abbreviate(expected)}, got {abbreviate(got)} too"
            raise DatasetError(problem, where=path, remedy="add them to `labels`, or repair the volume")
        return labels

    def _read_labels(self, path: Path, image_path: Path) -> Labels:
        orientation = read_header(image_path).orientation if self._label_affine == files.IMAGE else None
        voxels = read_voxels(path, orientation)
        return np.ascontiguousarray(to_slices(to_labels(voxels[..., 0], path), self.axis))

    def _read_modalities(self, volume: Volume) -> NDArray[np.uint8]:
        """(slices, H, W, modalities) uint8."""
        modalities = self._modalities or range(volume.modalities)
        if max(modalities) >= volume.modalities:
            expected = f"modalities below {volume.modalities}, the number of the volume"
            raise ConfigError(f"expected {expected}, got {abbreviate(modalities)}", where=volume.image_path)
        channels = []
        voxels = read_voxels(volume.image_path) if len(volume.image_paths) == 1 else None
        for modality in modalities:
            path = volume.image_path if voxels is not None else volume.image_paths[modality]
            values = read_voxels(path)[..., 0] if voxels is None else voxels[..., modality]
            channels.append(stretch_to_uint8(values, self._percentiles, path))
        return np.ascontiguousarray(to_slices(np.stack(channels, axis=-1), self.axis))

    def _cache(self, kind: str, path: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any]:
        """What `read` makes of the file, from memory if it was used recently; so is the error that it raised."""
        key = (kind, path)
        with self._lock:  # threads ask for slices of one volume: it is read once
            if key in self._errors:
                raise copy(self._errors[key])
            content = self._cached.pop(key, None)
            if content is None:
                try:
                    content = read(path)
                except DatasetError as error:
                    self._errors[key] = copy(error)  # without the traceback, whose frames hold voxels
                    raise
            self._cached[key] = content
            while len(self._cached) > MIN_CACHED and sum(c.nbytes for c in self._cached.values()) > CACHE_BYTES:
                del self._cached[next(iter(self._cached))]
            return content


class NnunetReader(DecathlonReader):
    """A dataset of nnU-Net, see `DecathlonReader`."""

    format = "nnunet"


def to_labels(values: NDArray[Any], path: Path) -> Labels:
    """The voxels of a label volume as integers; DatasetError if one is not a whole number in 0..MAX_LABEL."""
    if values.dtype.kind == "f" and not (is_whole := values == np.rint(values)).all():
        raise DatasetError(
            f"expected whole numbers as labels, got {values[~is_whole][0]}",
            where=f"{path}, {np.count_nonzero(~is_whole)} voxels",
            remedy="is this the image, or a label that was resampled with interpolation?",
        )
    low, high = values.min(), values.max()
    if low < 0 or high > MAX_LABEL:
        raise DatasetError(f"expected labels in 0..{MAX_LABEL}, got {low}..{high}", where=path)
    if high <= np.iinfo(np.uint8).max:
        return values.astype(np.uint8, copy=False)
    return values.astype(np.uint16, copy=False)


def _build_segmentation(labels: Labels, categories: CategorySet) -> PanopticSegmentation:
    """Turn (H, W) labels into segments: one per stuff label, one per connected piece of a thing label; others are void.

    Segments are numbered from 1 by label, then by first pixel.
    """
    segment_ids = np.zeros(labels.shape, dtype=np.int32)
    segments: list[Segment] = []
    for category_id in np.unique(labels).tolist():
        if category_id not in categories:
            continue  # nnU-Net's label `ignore`
        isthing = categories[category_id].isthing
        mask = labels == category_id
        for piece in _split_pieces(mask) if isthing else [mask]:
            segments.append(Segment(len(segments) + 1, category_id, isthing, int(np.count_nonzero(piece))))
            segment_ids[piece] = len(segments)
    return PanopticSegmentation(segment_ids, tuple(segments))


def _split_pieces(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """The connected pieces of a mask, with 8 neighbours, in the order of their first pixel."""
    _, piece_numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    numbers, first_pixels = np.unique(piece_numbers, return_index=True)
    for number in numbers[np.argsort(first_pixels)].tolist():
        if number:
            yield piece_numbers == number
