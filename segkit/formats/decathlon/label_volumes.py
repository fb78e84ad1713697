"""Folders of label volumes, without their images: saved predictions, and the ground truth that they are scored by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segkit.formats.decathlon import nnunet
from segkit.formats.decathlon.files import check_grid, list_niftis, load_table
from segkit.formats.decathlon.nifti import read_header, read_voxels
from segkit.formats.decathlon.options import find_tolerance, read_label_names
from segkit.formats.decathlon.reader import Labels, to_labels
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue

LABEL_FOLDER = "labelsTr"


class LabelTask(NamedTuple):
    """What is known of label volumes before they are read.

    Attributes:
        label_folder: Folder of the volumes.
        names: Label -> name, None if nothing names them.
        ignored: Labels that are not scored.
        tolerance_mm: Of NSD, None without one.
    """

    label_folder: Path
    names: dict[int, str] | None
    ignored: frozenset[int]
    tolerance_mm: float | None


def read_label_task(
    folder: str | Path, labels: Mapping[int | str, str] | None, tolerance_mm: float | None
) -> LabelTask:
    """Find the labels of a task and their names.

    Args:
        folder: Folder of a task of the Decathlon or nnU-Net, or of label volumes, such as the labelsTr of a task.
        labels: Label -> name, in place of those of dataset.json.
        tolerance_mm: Of NSD, in place of that of the task after which the folder is named.

    Returns:
        What is known.

    Raises:
        ConfigError: The labels or the tolerance are invalid.
        DatasetError: The folder is missing, or its dataset.json is damaged.
    """
    folder = Path(folder)
    is_task = (folder / LABEL_FOLDER).is_dir()
    root = folder.parent if folder.name == LABEL_FOLDER else folder
    table = load_table(root)
    names = read_label_names(labels, table, root)
    ignored = {label for label, name in (names or {}).items() if label and name == nnunet.IGNORE and labels is None}
    known = None if names is None else {label: name for label, name in names.items() if label not in ignored}
    label_folder = folder / LABEL_FOLDER if is_task else folder
    return LabelTask(label_folder, known, frozenset(ignored), find_tolerance(tolerance_mm, root))


def list_label_volumes(folder: str | Path, on_issue: IssueHandler = raise_issue) -> dict[str, Path]:
    """List the volumes of a folder.

    Args:
        folder: The folder.
        on_issue: Gets the issue of two files of one name; the first counts.

    Returns:
        Name without .nii or .nii.gz -> path, sorted.

    Raises:
        DatasetError: The folder is missing or has no NIfTI.
    """
    return list_niftis(Path(folder), "expected a folder of label volumes, <volume>.nii.gz", on_issue)


def read_label_volume(path: str | Path, like: str | Path | None = None) -> tuple[Labels, tuple[float, float, float]]:
    """Read a label volume.

    Args:
        path: The NIfTI.
        like: Another volume, on whose grid this one must be.

    Returns:
        (X, Y, Z) uint8 or uint16 labels in RAS+ orientation, and the edge lengths of a voxel in mm.

    Raises:
        DatasetError: The file is missing or damaged, holds no labels, or is not on the grid of `like`.
    """
    path = Path(path)
    header = read_header(path)
    if like is not None:
        check_grid(read_header(Path(like)), header, path, "prediction", raise_issue)
    elif header.modalities != 1:
        raise DatasetError(f"expected one label per voxel, got {header.modalities}", where=path)
    return to_labels(read_voxels(path)[..., 0], path), header.spacing_mm
