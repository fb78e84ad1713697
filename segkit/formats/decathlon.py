"""Medical Segmentation Decathlon (Antonelli et al. 2022, medicaldecathlon.com): NIfTI volumes, read slice by slice.

Volumes are turned to the closest RAS+ orientation first, so that an axis means the same in every file: 0 runs to the
patient's right (sagittal slices), 1 to the front (coronal), 2 to the head (axial). In a slice the first of the other
two axes runs to the right, the second upwards. `write_prediction` undoes both.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import os
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco_tables as coco
from segkit.formats.files import replacing
from segkit.formats.nifti import Header, read_header, read_voxels
from segkit.formats.source import Source, SourceImage
from segkit.structures import (
    CategorySet,
    ConfigError,
    DatasetError,
    PanopticSegmentation,
    SegkitError,
    Segment,
    default_color,
)

SUFFIXES = (".nii.gz", ".nii")
TREE = "expected imagesTr/<volume>.nii.gz and labelsTr/<volume>.nii.gz, and usually dataset.json"
SPLITS = ("train", "val", "all", "test")
BACKGROUND = 0
MAX_LABEL = 2**16 - 1
MAX_JSON_BYTES = 2**26
CACHE_BYTES = 2**27  # of slices that are kept: all volumes of a small task
LEAST_KEPT = 2  # files that are kept whatever their size: image and label of the last volume
AFFINE_TOLERANCE = 0.1  # voxels that a corner of the label may be off the image's
RGB = 3

log = logging.getLogger(__name__)

Labels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Volume:
    """name: its file's without the suffix. label_path: None in the test split. size_xyz: voxels, turned to RAS+."""

    name: str
    image_path: Path
    label_path: Path | None
    size_xyz: tuple[int, int, int]
    modalities: int


class DecathlonSource(Source):
    """One task of the Decathlon, each image one 2-D slice of one volume; the image_id is `<volume>_<slice>`.

    A SourceImage's file_name is the name that the slice takes where it is written as a PNG: there is no such file in
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

    Headers are checked at once, voxels when they are read; the last ones stay in memory, `CACHE_BYTES` or one volume.
    Raises ConfigError for options that make no sense, DatasetError where a file is missing or damaged, a volume has
    more than `MAX_VOXELS` or not the voxels its header speaks of, the label is not on the image's grid or not among
    `labels`.
    """

    layout = "decathlon"

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
        percentiles: Sequence[float] = (0.5, 99.5),
        keep_empty: bool = True,
    ) -> None:
        _check_options(axis, split, val_share, modalities, percentiles, held_out=held_out, things=things)
        self.root = Path(root)
        self.pictures = self.root / ("imagesTs" if split == "test" else "imagesTr")
        self._axis, self._modalities, self._percentiles = axis, tuple(modalities), tuple(percentiles)
        self._kept: dict[tuple[str, Path], NDArray[Any]] = {}
        table = _load_table(self.root)
        training = [] if split == "test" and (labels or table) else _training_files(self.root, table)
        named = _label_names(labels, table, self.root)
        self.categories = _categories(named or self._found_labels(training), things, self.root)
        chosen = _test_files(self.root, table) if split == "test" else _of_split(training, split, val_share, held_out)
        self.volumes = tuple(_check_volume(*files) for files in chosen)
        slices = [*self._slices(keep_empty)]
        self.images = tuple(image for image, *_ in slices)
        self._places = {image.image_id: (volume, index) for image, volume, index in slices}
        if not self.images:
            remedy = "choose another split, val_share or keep_empty"
            raise DatasetError(f"the split {split!r} has no slice", where=self.root, remedy=remedy)

    def place(self, image: SourceImage) -> tuple[Volume, int]:
        """The volume of a slice, and which one it is, from 0."""
        return self._places[image.image_id]

    def picture(self, image: SourceImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, intensities between the percentiles of the volume; DatasetError as the class says."""
        volume, index = self.place(image)
        channels = self._keep("channels", volume.image_path, self._read_channels)[index]
        rgb: NDArray[np.uint8] = channels.take(np.minimum(range(RGB), channels.shape[-1] - 1), axis=-1)
        return rgb

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """Stuff and background are one segment each, things one per connected piece; numbered by label, then by first
        pixel. All void where the volume has no label. Raises DatasetError as the class says."""
        volume, index = self.place(image)
        if volume.label_path is None:
            return PanopticSegmentation(np.zeros(image.size_hw, dtype=np.int32), ())
        return _segmentation(self._labels(volume.label_path)[index], self.categories)

    def _slices(self, keep_empty: bool) -> Iterator[tuple[SourceImage, Volume, int]]:
        for volume in self.volumes:
            width, height = (size for axis, size in enumerate(volume.size_xyz) if axis != self._axis)
            for index in range(volume.size_xyz[self._axis]):
                if keep_empty or volume.label_path is None or self._labels(volume.label_path)[index].any():
                    image_id = f"{volume.name}_{index:03d}"
                    yield SourceImage(image_id, f"{image_id}.png", (height, width)), volume, index

    def _labels(self, path: Path) -> Labels:
        return self._keep("labels", path, lambda path: _known(self._read_labels(path), self.categories, path))

    def _found_labels(self, training: Iterable[tuple[str, Path, Path]]) -> dict[int, str]:
        found: set[int] = set()
        for _, _, path in training:
            found.update(np.unique(self._keep("labels", path, self._read_labels)).tolist())
        return {label: f"label {label}" for label in sorted(found - {BACKGROUND})}

    def _read_labels(self, path: Path) -> Labels:
        return np.ascontiguousarray(_cut(_as_labels(read_voxels(path)[..., 0], path), self._axis))

    def _read_channels(self, path: Path) -> NDArray[np.uint8]:
        """(slices, H, W, 1 to 3) uint8."""
        voxels = read_voxels(path)
        chosen = self._modalities or range(min(RGB, voxels.shape[-1]))
        if max(chosen) >= voxels.shape[-1]:
            problem = f"expected modalities below {voxels.shape[-1]}, which the volume has, got {coco.listed(chosen)}"
            raise ConfigError(problem, where=path)
        channels = [_to_uint8(voxels[..., modality], self._percentiles, path) for modality in chosen]
        return np.ascontiguousarray(_cut(np.stack(channels, axis=-1), self._axis))

    def _keep(self, kind: str, path: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any]:
        """What `read` makes of the file, from memory where it was used of late."""
        content = self._kept.pop((kind, path), None)
        if content is None:
            content = read(path)
        self._kept[kind, path] = content
        while len(self._kept) > LEAST_KEPT and sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES:
            del self._kept[next(iter(self._kept))]
        return content


def write_prediction(
    path: str | Path, slices: Sequence[NDArray[np.integer[Any]]], like: str | Path, axis: int = 2
) -> None:
    """Writes the labels of all slices of a volume as one NIfTI on the grid of `like`, whole or not at all.

    slices: (H, W) integers in 0..65535 each, in the order and orientation in which `DecathlonSource` with this `axis`
    gives them. like: the image or label volume they belong to, whose header (affine, units, descriptions) is taken.
    The type is uint8, or uint16 where a label needs it; a path that ends in .gz is compressed. Raises ValueError where
    the slices do not fill the volume or hold something else, DatasetError where `like` cannot be read.
    """
    path, header = Path(path), read_header(Path(like))
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    expected = _cut(np.broadcast_to(np.uint8(0), header.size_xyz), axis).shape
    stacked = np.asarray(slices) if len({np.shape(labels) for labels in slices}) == 1 else np.zeros(0)
    if stacked.shape != expected or stacked.dtype.kind not in "iu":
        got = f"{len(slices)} of {sorted({np.shape(labels) for labels in slices})[:3]} {stacked.dtype}"
        raise ValueError(f"slices must be {expected[0]} maps of {expected[1:]} integers, got {got}")
    if stacked.min() < 0 or stacked.max() > MAX_LABEL:
        raise ValueError(f"labels must be in 0..{MAX_LABEL}, got {stacked.min()}..{stacked.max()}")
    voxels = _uncut(stacked.astype(np.min_scalar_type(stacked.max()), copy=False), axis)
    content = header.encode(voxels)
    with replacing(path) as neighbour:
        neighbour.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)


def _cut(voxels: NDArray[Any], axis: int) -> NDArray[Any]:
    """(X, Y, Z, ...) -> (slices, H, W, ...), a view: the first of the other axes to the right, the second upwards."""
    return np.rot90(np.moveaxis(voxels, axis, 0), axes=(1, 2))


def _uncut(slices: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.moveaxis(np.rot90(slices, -1, axes=(1, 2)), 0, axis)


def _to_uint8(voxels: NDArray[Any], percentiles: Sequence[float], where: Path) -> NDArray[np.uint8]:
    """0 at the first percentile of the finite voxels and below, 255 at the second and above, rounded between."""
    grey = np.zeros(voxels.shape, dtype=np.uint8)
    finite = voxels[np.isfinite(voxels)]
    if finite.size < voxels.size:
        log.warning("%s: %d voxels are NaN or infinite, shown as the lowest", where, voxels.size - finite.size)
    if not finite.size:
        return grey
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.percentile(finite, percentiles).astype(float)
    if not np.isfinite([low, high]).all():  # numpy interpolates in the type of the volume, which may overflow
        low, high = np.percentile(finite, percentiles, method="nearest").astype(float)
    for plane, shown in zip(voxels, grey, strict=True):  # one at a time: no volume of float64
        raised = np.where(np.isfinite(plane), plane, low) / 2 - low / 2  # halves: the difference does not overflow
        span = high / 2 - low / 2
        share = np.clip(raised, 0, span) / span if span > 0 else raised > 0
        shown[:] = np.rint(255 * share)
    return grey


def _as_labels(values: NDArray[Any], path: Path) -> Labels:
    if values.dtype.kind == "f" and not (whole := values == np.rint(values)).all():
        raise DatasetError(
            f"expected whole numbers as labels, got {values[~whole][0]}",
            where=f"{path}, {np.count_nonzero(~whole)} voxels",
            remedy="is this the image, or a label that was resampled with interpolation?",
        )
    low, high = values.min(), values.max()
    if low < 0 or high > MAX_LABEL:
        raise DatasetError(f"expected labels in 0..{MAX_LABEL}, got {low}..{high}", where=path)
    labels: Labels = values.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16, copy=False)
    return labels


def _known(labels: Labels, categories: CategorySet, path: Path) -> Labels:
    table = np.zeros(MAX_LABEL + 1, dtype=bool)
    table[[*categories.isthing_of]] = True
    known = table.take(labels)
    if not known.all():
        strange = np.unique(labels[~known]).tolist()
        problem = f"expected labels among {coco.listed(categories.isthing_of)}, got {coco.listed(strange)} too"
        raise DatasetError(problem, where=path, remedy="add them to `labels`, or repair the volume")
    return labels


def _segmentation(labels: Labels, categories: CategorySet) -> PanopticSegmentation:
    segment_ids = np.zeros(labels.shape, dtype=np.int32)
    segments: list[Segment] = []
    for category_id in np.unique(labels).tolist():
        isthing = categories[category_id].isthing
        mask = labels == category_id
        for piece in _pieces(mask) if isthing else [mask]:
            segments.append(Segment(len(segments) + 1, category_id, isthing, int(np.count_nonzero(piece))))
            segment_ids[piece] = len(segments)
    return PanopticSegmentation(segment_ids, tuple(segments))


def _pieces(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """The connected pieces, 8 neighbours, in the order of their first pixel."""
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    found, first = np.unique(numbers, return_index=True)
    for number in found[np.argsort(first)].tolist():
        if number:
            yield numbers == number


def _load_table(root: Path) -> coco.Entry | None:
    """dataset.json, or None where there is none."""
    path = root / "dataset.json"
    if not root.is_dir():
        raise DatasetError("expected the folder of a task, found none", where=root, remedy="check the path")
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        got = f"{path.stat().st_size} bytes"
        raise DatasetError(f"expected a table of at most {MAX_JSON_BYTES} bytes, got {got}", where=path)
    return coco.load(path)


def _training_files(root: Path, table: coco.Entry | None) -> list[tuple[str, Path, Path]]:
    """(name, image, label) of each volume, sorted by name."""
    if table is None:
        images, labels = _volumes_in(root / "imagesTr"), _volumes_in(root / "labelsTr")
        for there, here, what in ((images, labels, "label"), (labels, images, "image")):
            if lone := sorted(there.keys() - here.keys()):
                problem = f"{len(lone)} of {len(there)} volumes have no {what}: {coco.listed(lone)}"
                raise DatasetError(problem, where=there[lone[0]], remedy=TREE)
        return [(name, images[name], labels[name]) for name in images]
    path = root / "dataset.json"
    entries = coco.table(table, "training", path)
    images = _listed_volumes([coco.field(e, "image", coco.TEXT, f"{path}, training") for e in entries], root)
    label_paths = [_listed_volume(coco.field(e, "label", coco.TEXT, f"{path}, training"), root) for e in entries]
    return sorted(zip(images, images.values(), label_paths, strict=True))


def _test_files(root: Path, table: coco.Entry | None) -> list[tuple[str, Path, None]]:
    images = _volumes_in(root / "imagesTs") if table is None else _listed_test_volumes(table, root)
    return [(name, images[name], None) for name in sorted(images)]


def _listed_test_volumes(table: coco.Entry, root: Path) -> dict[str, Path]:
    names = coco.field(table, "test", coco.LIST, root / "dataset.json")
    # The Decathlon lists paths; derived data sets list objects as in `training`.
    return _listed_volumes([name.get("image") if isinstance(name, dict) else name for name in names], root)


def _listed_volumes(names: Sequence[object], root: Path) -> dict[str, Path]:
    volumes: dict[str, Path] = {}
    for name in names:
        path = _listed_volume(name, root)
        if _stem(path) in volumes:
            problem = f"expected volumes of different names, got {_stem(path)!r} twice"
            raise DatasetError(problem, where=root / "dataset.json", remedy="rename one, or drop the second entry")
        volumes[_stem(path)] = path
    return volumes


def _listed_volume(name: object, root: Path) -> Path:
    where = root / "dataset.json"
    if not isinstance(name, str) or not name.endswith(SUFFIXES):
        raise DatasetError(f"expected the path of a {SUFFIXES[0]}, got {reprlib.repr(name)}", where=where)
    coco.check_inside(name, "path of a volume", where)
    try:
        if (root / name).is_file():
            return root / name
    except (OSError, ValueError):  # too long, or no Unicode: not a file either
        pass
    problem = f"dataset.json names {reprlib.repr(name)}, but there is no such file"
    raise DatasetError(problem, where=root, remedy="complete the download, or take the entry out")


def _volumes_in(folder: Path) -> dict[str, Path]:
    """The NIfTI files by name, sorted; hidden files (macOS leaves `._*`) are passed over."""
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, remedy=TREE)
    paths = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
    volumes: dict[str, Path] = {}
    for path in filter(Path.is_file, paths):
        if volumes.setdefault(_stem(path), path) != path:
            problem = f"expected one file for a volume, got {volumes[_stem(path)].name} too"
            raise DatasetError(problem, where=path, remedy="remove one of them")
    if not volumes:
        raise DatasetError(f"expected files that end in {SUFFIXES[0]}, found none", where=folder, remedy=TREE)
    return dict(sorted(volumes.items()))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _of_split(
    training: list[tuple[str, Path, Path]], split: str, val_share: float, held_out: Collection[str]
) -> list[tuple[str, Path, Path]]:
    if strange := sorted(set(held_out) - {name for name, *_ in training}):
        raise ConfigError(f"expected `held_out` to name volumes, there is no {coco.listed(strange)}")

    by_hash = sorted((name for name, *_ in training), key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    least, most = int(val_share > 0), len(by_hash) - int(val_share < 1)
    count = min(max(round(val_share * len(by_hash)), least), most)
    val = set(held_out or by_hash[:count])
    return [files for files in training if split == "all" or (files[0] in val) == (split == "val")]


def _label_names(labels: Mapping[int | str, str] | None, table: coco.Entry | None, root: Path) -> dict[int, str] | None:
    if labels is None and table is None:
        return None
    error: type[SegkitError] = DatasetError if labels is None else ConfigError
    where = root / "dataset.json" if labels is None else "`labels`"
    given = table.get("labels") if labels is None and table is not None else labels
    if not isinstance(given, Mapping) or not given:
        raise error(f"expected `labels` to be {{label: name}}, got {reprlib.repr(given)}", where=where)
    names: dict[int, str] = {}
    for key, name in given.items():
        label = int(key) if re.fullmatch("[0-9]{1,5}", str(key), re.ASCII) else -1
        if not 0 <= label <= MAX_LABEL or label in names or not isinstance(name, str) or not name:
            expected = f"a different integer in 0..{MAX_LABEL} and a name for each label"
            raise error(f"expected {expected}, got {reprlib.repr({key: name})}", where=where)
        names[label] = name
    return names


def _categories(names: Mapping[int, str], things: Collection[str], root: Path) -> CategorySet:
    names = {BACKGROUND: "background", **names}
    foreground = [name for label, name in names.items() if label != BACKGROUND]
    if strange := sorted(set(things) - set(foreground)):
        known = coco.listed(foreground)
        raise ConfigError(f"expected `things` to be among the labels {known}, got {coco.listed(strange)}")
    entries = [
        {
            "id": label,
            "name": name,
            "isthing": name in things and label != BACKGROUND,
            "color": (0, 0, 0) if label == BACKGROUND else default_color(label),
        }
        for label, name in sorted(names.items())
    ]
    return CategorySet.from_coco(entries, root)


def _check_volume(name: str, image_path: Path, label_path: Path | None) -> Volume:
    image = read_header(image_path)
    if label_path is not None:
        label = read_header(label_path)
        if label.modalities != 1 or label.shape != image.shape:
            expected, got = (" x ".join(map(str, (*h.shape, h.modalities))) for h in (image, label))
            raise DatasetError(f"expected a label of the size of its image, {expected}, got {got}", where=label_path)
        if (off := _distance(image, label)) > AFFINE_TOLERANCE:
            problem = f"expected a label on the grid of its image, its affine puts a corner {off:.3g} voxels off"
            raise DatasetError(problem, where=label_path, remedy="resample the label to the image's grid")
    return Volume(name, image_path, label_path, image.size_xyz, image.modalities)


def _distance(image: Header, label: Header) -> float:
    """Voxels by which the corner of `label` that is farthest off lies off the same corner of `image`."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*np.subtract(image.shape, 1), 1]
    with np.errstate(all="ignore"):
        found = corners @ (np.linalg.pinv(image.affine) @ label.affine - np.eye(4)).T
    farthest = float(np.abs(found).max())
    return farthest if math.isfinite(farthest) else math.inf


def _check_options(axis: Any, split: Any, val_share: Any, modalities: Any, percentiles: Any, **names: Any) -> None:
    def check(right: bool, key: str, expected: str, got: object) -> None:
        if not right:
            raise ConfigError(f"expected `{key}` to be {expected}, got {reprlib.repr(got)}")

    def is_list(value: Any, kinds: tuple[type, ...], of: type = Sequence) -> bool:
        listed = isinstance(value, of) and not isinstance(value, str)
        return listed and all(type(part) in kinds for part in value)

    check(type(axis) is int and axis in (0, 1, 2), "axis", "0, 1 or 2", axis)
    check(split in SPLITS, "split", f"one of {', '.join(SPLITS)}", split)
    check(type(val_share) in coco.NUMBER and 0 <= val_share <= 1, "val_share", "in 0..1", val_share)
    for key, value in names.items():
        check(is_list(value, coco.TEXT, Collection), key, "a list of names", value)
    three = is_list(modalities, coco.INTEGER) and len(modalities) <= RGB and min(modalities, default=0) >= 0
    check(three, "modalities", "a list of up to three numbers from 0", modalities)
    two = is_list(percentiles, coco.NUMBER) and len(percentiles) == 2
    rising = two and 0 <= percentiles[0] < percentiles[1] <= 100
    check(rising, "percentiles", "two rising numbers in 0..100", percentiles)
