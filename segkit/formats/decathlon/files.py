"""The files of a Decathlon task: which volumes there are, in which split, and whether image and label fit."""

from __future__ import annotations

import hashlib
import math
import os
import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkit.formats.decathlon.nifti import Header, read_header
from segkit.utils import json_fields
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, report_missing, try_read
from segkit.utils.text import abbreviate

SUFFIXES = (".nii.gz", ".nii")
TREE = "expected imagesTr/<volume>.nii.gz and labelsTr/<volume>.nii.gz, and usually dataset.json"
TABLE = "dataset.json"
COMPLETE = "complete the download, or take the volume out"
MAX_JSON_BYTES = 2**26
AFFINE_TOLERANCE = 0.1  # voxels that a corner of the label may be off the image's


@dataclass(frozen=True)
class Files:
    """name: the image file's without the suffix. label_path: None in the test split. The files may be missing."""

    name: str
    image_path: Path
    label_path: Path | None


@dataclass(frozen=True)
class Volume:
    """As `Files`, of files that are there. size_xyz: voxels, turned to RAS+."""

    name: str
    image_path: Path
    label_path: Path | None
    size_xyz: tuple[int, int, int]
    modalities: int


def load_table(root: Path) -> json_fields.Entry | None:
    """dataset.json, or None where there is none; DatasetError where it or the folder cannot be used."""
    path = root / TABLE
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise DatasetError("expected the folder of a task, found none", where=root, remedy="check the path")
    if not os.path.isfile(path):
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        got = f"{path.stat().st_size} bytes"
        raise DatasetError(f"expected a table of at most {MAX_JSON_BYTES} bytes, got {got}", where=path)
    return json_fields.load_object(path)


def labelled_files(root: Path, table: json_fields.Entry | None, on_issue: IssueHandler) -> list[Files]:
    """The volumes with labels, sorted by name, as the table lists them, or without it as imagesTr and labelsTr hold
    them; of two with one name the first. DatasetError where there is no list or folder."""
    if table is None:
        return _paired(_volumes_in(root / "imagesTr", on_issue), _volumes_in(root / "labelsTr", on_issue), root)
    found = []
    for entry in _entries(table, "training", root, on_issue):
        image_path, label_path = (_listed(entry, key, "training", root, on_issue) for key in ("image", "label"))
        if image_path is not None and label_path is not None:
            found.append(Files(_stem(image_path), image_path, label_path))
    return _distinct(found, root, on_issue)


def unlabelled_files(root: Path, table: json_fields.Entry | None, on_issue: IssueHandler) -> list[Files]:
    """The volumes without labels, sorted by name, of the table or of imagesTs; as `labelled_files` else."""
    if table is None:
        return [Files(name, path, None) for name, path in _volumes_in(root / "imagesTs", on_issue).items()]
    found = []
    for entry in _entries(table, "test", root, on_issue):
        path = _listed(entry, "image", "test", root, on_issue)
        if path is not None:
            found.append(Files(_stem(path), path, None))
    return _distinct(found, root, on_issue)


def unlisted(listed: Collection[Files]) -> tuple[str, ...]:
    """Lines of `DatasetReader.skipped` on volumes that lie beside those of the list and are not in it."""
    used = {path for files in listed for path in (files.image_path, files.label_path) if path is not None}
    folders = sorted({path.parent for path in used})
    beside = {folder: [p.name for p in _niftis(folder) if p not in used] for folder in folders}
    return tuple(
        line for folder, names in beside.items() for line in describe_unused(folder, "volumes are not listed", names)
    )


def of_split(
    there: Sequence[Files], listed: Sequence[Files], split: str, val_share: float, held_out: Collection[str]
) -> list[Files]:
    """The volumes of "train", "val" or "all", those that are there, as DecathlonReader shares them out; ConfigError
    where a name in `held_out` is of none in the list."""
    if strange := sorted({*held_out} - {files.name for files in listed}):
        raise ConfigError(f"expected `held_out` to name volumes, there is no {abbreviate(strange)}")
    by_hash = sorted((files.name for files in there), key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    least, most = int(val_share > 0), len(by_hash) - int(val_share < 1)
    count = min(max(round(val_share * len(by_hash)), least), most)
    val = {*(held_out or by_hash[:count])}
    return [files for files in there if split == "all" or (files.name in val) == (split == "val")]


def that_are_there(listed: Sequence[Files], on_issue: IssueHandler) -> list[Files]:
    """Those whose files exist; each that does not is told."""
    labels = [files.label_path for files in listed if files.label_path is not None]
    gone = report_missing(on_issue, "image-missing", "volume", [files.image_path for files in listed], COMPLETE)
    gone |= report_missing(on_issue, "png-missing", "label", labels, COMPLETE)
    return [files for files in listed if files.image_path not in gone and files.label_path not in gone]


def check_volume(files: Files, on_issue: IssueHandler) -> Volume | None:
    """What the headers say; None where one is damaged, or the label is not on the image's grid, which is told."""
    image = try_read(on_issue, "image-unreadable", read_header, files.image_path)
    if files.label_path is not None:
        label = try_read(on_issue, "annotation-unreadable", read_header, files.label_path)
        if image is None or label is None or not _fits(image, label, files.label_path, on_issue):
            return None
    if image is None:
        return None
    return Volume(files.name, files.image_path, files.label_path, image.size_xyz, image.modalities)


def _volumes_in(folder: Path, on_issue: IssueHandler) -> dict[str, Path]:
    """The NIfTI files by name, sorted; hidden files (macOS leaves `._*`) are passed over."""
    if not os.path.isdir(folder):
        raise DatasetError("no such folder", where=folder, remedy=TREE)
    volumes: dict[str, Path] = {}
    for path in _niftis(folder):
        first = volumes.setdefault(_stem(path), path)
        if first != path:
            problem = f"expected one file for a volume, got {first.name} too"
            on_issue("image-id-twice", DatasetError(problem, where=path, remedy="remove one of them"))
    if not volumes:
        raise DatasetError(f"expected files that end in {SUFFIXES[0]}, found none", where=folder, remedy=TREE)
    return dict(sorted(volumes.items()))


def _niftis(folder: Path) -> list[Path]:
    """The NIfTI files, sorted, hidden ones passed over; none where there is no folder."""
    paths = folder.iterdir() if os.path.isdir(folder) else ()
    return sorted(p for p in paths if p.name.endswith(SUFFIXES) and not p.name.startswith(".") and p.is_file())


def _paired(images: dict[str, Path], labels: dict[str, Path], root: Path) -> list[Files]:
    """The partner that a file lacks is expected under its name."""
    found = []
    for name in sorted({*images, *labels}):
        there = images.get(name) or labels[name]
        image_path = images.get(name, root / "imagesTr" / there.name)
        found.append(Files(name, image_path, labels.get(name, root / "labelsTr" / there.name)))
    return found


def _entries(table: json_fields.Entry, part: str, root: Path, on_issue: IssueHandler) -> Iterator[json_fields.Entry]:
    """The objects in a list of the table; what is none is told, a path alone is an image."""
    for index, listed in enumerate(json_fields.get_field(table, part, json_fields.LIST, root / TABLE)):
        # The Decathlon lists paths in `test`; derived data sets list objects as in `training`.
        if isinstance(listed, dict):
            yield listed
        elif part == "test":
            yield {"image": listed}
        else:
            problem = f"expected an object, got {reprlib.repr(listed)}"
            on_issue("type-wrong", DatasetError(problem, where=f"{root / TABLE}, {part}, index {index}"))


def _listed(entry: json_fields.Entry, key: str, part: str, root: Path, on_issue: IssueHandler) -> Path | None:
    """The path under this key of an entry of the table; None where it is none, which is told."""
    where = f"{root / TABLE}, {part}"
    code = "type-wrong" if key in entry else "key-missing"
    name = try_read(on_issue, code, json_fields.get_field, entry, key, json_fields.TEXT, where)
    if name is None or try_read(on_issue, "name-outside", _checked_inside, name, where) is None:
        return None
    if not name.endswith(SUFFIXES):
        problem = f"expected the path of a {SUFFIXES[0]}, got {reprlib.repr(name)}"
        on_issue("type-wrong", DatasetError(problem, where=where))
        return None
    return root / str(name)


def _checked_inside(name: str, where: str) -> str:
    json_fields.check_inside(name, "path of a volume", where)
    return name


def _distinct(found: Iterable[Files], root: Path, on_issue: IssueHandler) -> list[Files]:
    find_by_stem: dict[str, Files] = {}
    for files in found:
        if find_by_stem.setdefault(files.name, files) is not files:
            problem = f"expected volumes of different names, got {files.name!r} twice"
            remedy = "rename one, or drop the second entry"
            on_issue("image-id-twice", DatasetError(problem, where=root / TABLE, remedy=remedy))
    return [find_by_stem[name] for name in sorted(find_by_stem)]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _fits(image: Header, label: Header, path: Path, on_issue: IssueHandler) -> bool:
    if label.modalities != 1 or label.shape != image.shape:
        expected, got = (" x ".join(map(str, (*h.shape, h.modalities))) for h in (image, label))
        problem = f"expected a label of the size of its image, {expected}, got {got}"
        on_issue("size-differs", DatasetError(problem, where=path))
        return False
    if (off := _distance(image, label)) > AFFINE_TOLERANCE:
        problem = f"expected a label on the grid of its image, its affine puts a corner {off:.3g} voxels off"
        remedy = "resample the label to the image's grid"
        on_issue("annotation-unreadable", DatasetError(problem, where=path, remedy=remedy))
        return False
    return True


def _distance(image: Header, label: Header) -> float:
    """Voxels by which the corner of `label` that is farthest off lies off the same corner of `image`."""
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*np.subtract(image.shape, 1), 1]
    with np.errstate(all="ignore"):
        found = corners @ (np.linalg.pinv(image.affine) @ label.affine - np.eye(4)).T
    farthest = float(np.abs(found).max())
    return farthest if math.isfinite(farthest) else math.inf
