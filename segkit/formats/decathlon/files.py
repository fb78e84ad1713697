"""The files of a Decathlon task: which volumes it has, in which split, and whether image and label fit each other."""

from __future__ import annotations

import hashlib
import math
import os
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkit.formats.decathlon import nnunet
from segkit.formats.decathlon.nifti import NIFTI_SUFFIXES, Header, read_header
from segkit.formats.image_files import check_folder, index_unique
from segkit.utils import json_fields
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import check_file_size
from segkit.utils.issues import IssueHandler, describe_unused, report_missing, try_read
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

TABLE = "dataset.json"
TREE = "expected imagesTr/<volume>.nii.gz and labelsTr/<volume>.nii.gz, and usually dataset.json"
COMPLETE = "complete the download, or take the volume out"
MAX_JSON_BYTES = 2**26
OWN, IMAGE = "own", "image"  # whose affine a label has
AFFINE_TOLERANCE = 0.1  # voxels between a corner of the label and the same corner of the image


@dataclass(frozen=True)
class VolumeFiles:
    """The files of a volume, which may be missing.

    Attributes:
        name: File name of the image without the suffix, and without the number of the channel.
        image_paths: The image's NIfTI, or one for each channel.
        label_path: The label's NIfTI; None in the test split.
    """

    name: str
    image_paths: tuple[Path, ...]
    label_path: Path | None

    @property
    def image_path(self) -> Path:
        """The image's NIfTI, or that of its first channel."""
        return self.image_paths[0]


@dataclass(frozen=True)
class Volume(VolumeFiles):
    """A volume whose files exist and whose headers are valid.

    Attributes:
        size_xyz: Voxels in RAS+ orientation.
        spacing_mm: Edge lengths of a voxel in RAS+ orientation.
        modalities: Number of channels of the image.
    """

    size_xyz: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modalities: int


def load_table(root: Path) -> Entry | None:
    """Load dataset.json, None without one; DatasetError if the file or the folder cannot be used."""
    path = root / TABLE
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise DatasetError("expected the folder of a task, found none", where=root, remedy="check the path")
    check_file_size(path, MAX_JSON_BYTES)
    return json_fields.load_object(path) if os.path.isfile(path) else None


def list_volumes(root: Path, table: Entry | None, is_test: bool, on_issue: IssueHandler) -> list[VolumeFiles]:
    """The volumes with labels, or those of the test split, sorted by name.

    The table lists them; without a table they are the files in imagesTr and labelsTr, or in imagesTs. Of two volumes
    with one name the first counts. nnU-Net's files are found by their names. DatasetError without a list or folder.
    """
    part, folder = ("test", "imagesTs") if is_test else ("training", "imagesTr")
    names, label_names = ({_get_stem(p): p for p in _find_niftis(root / name)} for name in (folder, "labelsTr"))
    nnunet.check_file_ending(table, NIFTI_SUFFIXES, root / TABLE)
    if nnunet.is_nnunet(table, names, {} if is_test else label_names):
        images = list_niftis(root / folder, TREE, on_issue)
        channels = nnunet.group_channels(images, table, root / folder)
        labels = {} if is_test else list_niftis(root / "labelsTr", TREE, on_issue)
        count = len(next(iter(channels.values())))
        return [_pair(name, channels, labels, root, is_test, count) for name in sorted({*channels, *labels})]
    if table is None:
        images = list_niftis(root / folder, TREE, on_issue)
        labels = {} if is_test else list_niftis(root / "labelsTr", TREE, on_issue)
        by_name = {name: (path,) for name, path in images.items()}
        return [_pair(name, by_name, labels, root, is_test) for name in sorted({*images, *labels})]
    volumes: dict[str, VolumeFiles] = {}
    for entry in _iterate_entries(table, part, root, on_issue):
        arguments = root, f"{root / TABLE}, {part}"
        image_path = try_read(on_issue, "", _read_path, entry, "image", *arguments)
        label_path = None if is_test else try_read(on_issue, "", _read_path, entry, "label", *arguments)
        if image_path is None or (label_path is None and not is_test):
            continue
        volume = VolumeFiles(_get_stem(image_path), (image_path,), label_path)
        if volumes.setdefault(volume.name, volume) is not volume:
            problem = f"expected volumes of different names, got {volume.name!r} twice"
            remedy = "rename one, or drop the second entry"
            on_issue("image-id-twice", DatasetError(problem, where=root / TABLE, remedy=remedy))
    return [volumes[name] for name in sorted(volumes)]


def describe_unlisted(volumes: Collection[VolumeFiles]) -> tuple[str, ...]:
    """Lines of `DatasetReader.skipped` on volumes in the same folders that are not in the list."""
    used = {path for files in volumes for path in (*files.image_paths, files.label_path) if path is not None}
    lines: tuple[str, ...] = ()
    for folder in sorted({path.parent for path in used}):
        unused = [path.name for path in _find_niftis(folder) if path not in used]
        lines += describe_unused(folder, "volumes are not listed", unused)
    return lines


def select_split(
    existing: Sequence[VolumeFiles],
    listed: Sequence[VolumeFiles],
    split: str,
    val_share: float,
    held_out: Collection[str],
) -> list[VolumeFiles]:
    """The existing volumes of "train", "val" or "all", as `DecathlonReader` describes the splits.

    ConfigError if a name in `held_out` is not in the list.
    """
    if unexpected := sorted({*held_out} - {files.name for files in listed}):
        raise ConfigError(f"expected `held_out` to name volumes, there is no {abbreviate(unexpected)}")
    by_hash = sorted((files.name for files in existing), key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    lowest, highest = int(val_share > 0), len(by_hash) - int(val_share < 1)
    count = min(max(round(val_share * len(by_hash)), lowest), highest)
    val = {*(held_out or by_hash[:count])}
    return [files for files in existing if split == "all" or (files.name in val) == (split == "val")]


def drop_missing(volumes: Sequence[VolumeFiles], on_issue: IssueHandler) -> list[VolumeFiles]:
    """The volumes whose files exist; missing files are reported."""
    labels = [files.label_path for files in volumes if files.label_path is not None]
    images = [path for files in volumes for path in files.image_paths]
    missing = report_missing(on_issue, "image-missing", "volume", images, COMPLETE)
    missing |= report_missing(on_issue, "png-missing", "label", labels, COMPLETE)
    return [files for files in volumes if missing.isdisjoint({*files.image_paths, files.label_path})]


def check_volume(files: VolumeFiles, label_affine: str, on_issue: IssueHandler) -> Volume | None:
    """Read the headers; None, once reported, if one is damaged or the label is not on the image's grid."""
    headers = [try_read(on_issue, "image-unreadable", read_header, path) for path in files.image_paths]
    image, is_valid = headers[0], None not in headers
    for path, header in zip(files.image_paths[1:], headers[1:], strict=True):
        if image is not None and header is not None and not check_grid(image, header, path, "channel", on_issue):
            is_valid = False
    if files.label_path is not None:
        label = try_read(on_issue, "annotation-unreadable", read_header, files.label_path)
        if image is None or label is None:
            return None
        is_same = label_affine == IMAGE
        is_valid = check_grid(image, label, files.label_path, "label", on_issue, is_same) and is_valid
    if image is None or not is_valid:
        return None
    modalities = image.modalities if len(headers) == 1 else len(headers)
    return Volume(files.name, files.image_paths, files.label_path, image.size_xyz, image.spacing_mm, modalities)


def list_niftis(folder: Path, expected: str, on_issue: IssueHandler) -> dict[str, Path]:
    """Name -> path of the NIfTI files, sorted by path; DatasetError, with what was expected, if there are none."""
    check_folder(folder, expected)
    named_paths = ((_get_stem(path), path) for path in _find_niftis(folder))
    paths = index_unique(named_paths, "image-id-twice", "remove one of them", on_issue)
    if not paths:
        raise DatasetError(f"expected files that end in {NIFTI_SUFFIXES[0]}, found none", where=folder, remedy=expected)
    return paths


def _find_niftis(folder: Path) -> list[Path]:
    """The NIfTI files, sorted, without hidden ones (macOS leaves `._*`); none without the folder."""
    paths = folder.iterdir() if os.path.isdir(folder) else ()
    return sorted(p for p in paths if p.name.endswith(NIFTI_SUFFIXES) and not p.name.startswith(".") and p.is_file())


def _pair(
    name: str,
    images: Mapping[str, tuple[Path, ...]],
    labels: Mapping[str, Path],
    root: Path,
    is_test: bool,
    channels: int = 0,
) -> VolumeFiles:
    """The image and label of a name; one that does not exist is expected under the file name of the other.

    channels: their number, of nnU-Net; 0 for the Decathlon's names.
    """
    image_paths = images.get(name, ())
    folder = root / ("imagesTs" if is_test else "imagesTr")
    if channels:
        ending = ".nii.gz" if name not in labels else labels[name].name.removeprefix(name)
        image_paths = image_paths or tuple(folder / f"{name}_{number:04d}{ending}" for number in range(channels))
        label_name = f"{name}{ending}"
    else:
        image_paths = image_paths or (folder / labels[name].name,)
        label_name = image_paths[0].name
    return VolumeFiles(name, image_paths, None if is_test else labels.get(name, root / "labelsTr" / label_name))


def _iterate_entries(table: Entry, part: str, root: Path, on_issue: IssueHandler) -> Iterator[Entry]:
    """The objects in a list of the table; anything else is reported."""
    for index, entry in enumerate(json_fields.get_field(table, part, json_fields.LIST, root / TABLE)):
        # The Decathlon lists paths in `test`; datasets derived from it list objects as in `training`.
        if isinstance(entry, dict):
            yield entry
        elif part == "test":
            yield {"image": entry}
        else:
            problem = f"expected an object, got {reprlib.repr(entry)}"
            on_issue("type-wrong", DatasetError(problem, where=f"{root / TABLE}, {part}, index {index}"))


def _read_path(entry: Entry, key: str, root: Path, where: str) -> Path:
    """The path under this key of a table's entry; DatasetError if it is not a path of a NIfTI."""
    name: str = json_fields.get_field(entry, key, json_fields.TEXT, where)
    json_fields.check_inside(name, "path of a volume", where)
    if not name.endswith(NIFTI_SUFFIXES):
        problem = f"expected the path of a {NIFTI_SUFFIXES[0]}, got {reprlib.repr(name)}"
        raise DatasetError(problem, where=where, code="type-wrong")
    return root / name


def _get_stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def check_grid(
    image: Header, other: Header, path: Path, what: str, on_issue: IssueHandler, is_same_affine: bool = False
) -> bool:
    """Whether a label, a channel of one modality or a prediction is on the grid of its image; reported if it is not.

    The image of a prediction is its ground truth.
    """
    owner = "ground truth" if what == "prediction" else "image"
    expected, got = (" x ".join(map(str, (*h.shape, h.modalities))) for h in (image, other))
    if other.modalities != 1 or other.shape != image.shape or (what == "channel" and image.modalities != 1):
        problem = f"expected a {what} of the size of its {owner}, {expected}, got {got}"
        on_issue("size-differs", DatasetError(problem, where=path))
        return False
    if not is_same_affine and (distance := _compute_distance(image, other)) > AFFINE_TOLERANCE:
        problem = f"expected a {what} on the grid of its {owner}, its affine puts a corner {distance:.3g} voxels off"
        if not other.nifti["sform_code"] and not other.nifti["qform_code"]:
            problem = f"{problem}: it has no affine of its own"
        elif np.array_equal(np.abs(other.affine), np.eye(4)):
            problem = f"{problem}: it is the identity, as of a file that was written without one"
        remedy = f"resample it to the grid of the {owner}"
        if what == "label":
            remedy = (
                f"if its voxels are in the image's order, label_affine={IMAGE} takes the image's; otherwise {remedy}"
            )
        on_issue("affine-differs", DatasetError(problem, where=path, remedy=remedy))
        return False
    return True


def _compute_distance(image: Header, label: Header) -> float:
    """The largest distance in voxels, per axis, between a corner of `label` and the same corner of `image`."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*np.subtract(image.shape, 1), 1]
    with np.errstate(all="ignore"):
        offsets = corners @ (np.linalg.pinv(image.affine) @ label.affine - np.eye(4)).T
    farthest = float(np.abs(offsets).max())
    return farthest if math.isfinite(farthest) else math.inf
