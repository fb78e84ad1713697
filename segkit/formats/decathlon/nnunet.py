"""nnU-Net's raw datasets (github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md): one NIfTI for each channel.

imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz and so on are the channels of one volume, labelsTr/CASE.nii.gz its label.
dataset.json of version 2 has `channel_names`, `labels` by name, `numTraining` and `file_ending`; version 1 has that of
the Decathlon.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

CHANNEL = re.compile("(.+)_([0-9]{4})", re.ASCII | re.DOTALL)  # name of a case, and its channel
VERSION_2_KEYS = ("channel_names", "file_ending")
IGNORE = "ignore"  # the label of voxels that are not scored
MAX_CHANNELS = 1000


def is_nnunet(table: Entry | None, image_names: Mapping[str, Path], label_names: Mapping[str, Path]) -> bool:
    """Whether a dataset is of nnU-Net: dataset.json is of version 2, or the files have channel numbers.

    Args:
        table: dataset.json, None without one.
        image_names: files of imagesTr or imagesTs by name without suffix.
        label_names: files of labelsTr by name without suffix; empty for imagesTs.

    Returns:
        True for nnU-Net's names.
    """
    if table is not None and any(key in table for key in VERSION_2_KEYS):
        return True
    matches = [CHANNEL.fullmatch(name) for name in image_names]
    cases = {match[1] for match in matches if match}
    has_first = any(match is not None and int(match[2]) == 0 for match in matches)
    if not has_first or not all(matches) or image_names.keys() & label_names.keys():
        return False
    return bool(cases & label_names.keys()) if label_names else True


def check_file_ending(table: Entry | None, suffixes: tuple[str, ...], where: Path) -> None:
    """DatasetError if dataset.json names files that are no NIfTIs."""
    ending = suffixes[0] if table is None else table.get("file_ending", suffixes[0])
    if ending not in suffixes:
        problem = f"expected `file_ending` to be {' or '.join(suffixes)}, got {reprlib.repr(ending)}"
        remedy = (
            "convert the files to .nii.gz; 2-D images are read as `semantic-maps`: images/NAME.png, labels/NAME.png"
        )
        raise DatasetError(problem, where=where, remedy=remedy)


def group_channels(image_names: Mapping[str, Path], table: Entry | None, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each case by channel, from 0; a channel without a file has the path where it should be.

    DatasetError if a name has no channel number.
    """
    channels: dict[str, dict[int, Path]] = {}
    for name, path in image_names.items():
        match = CHANNEL.fullmatch(name)
        if match is None or int(match[2]) >= MAX_CHANNELS:
            problem = "expected names of files with the number of their channel, as in CASE_0000.nii.gz"
            raise DatasetError(problem, where=path, remedy="rename or move it")
        channels.setdefault(match[1], {})[int(match[2])] = path
    names = get_channel_names(table)
    count = max([len(names), *(max(paths) + 1 for paths in channels.values())])
    first = next(iter(image_names.values()))
    ending = first.name.removeprefix(first.name.split(".nii")[0])
    return {
        case: tuple(paths.get(number, folder / f"{case}_{number:04d}{ending}") for number in range(count))
        for case, paths in channels.items()
    }


def get_channel_names(table: Entry | None) -> dict[int, str]:
    """Channel -> name, of `channel_names`, or the Decathlon's `modality`; empty without them."""
    names: dict[int, str] = {}
    for key in ("channel_names", "modality"):
        entries = (table or {}).get(key)
        if isinstance(entries, Mapping):
            for number, name in entries.items():
                if re.fullmatch("[0-9]{1,3}", str(number), re.ASCII) and isinstance(name, str):
                    names.setdefault(int(number), name)
    return names


def describe_count(table: Entry | None, count: int, where: Path) -> tuple[str, ...]:
    """A line if dataset.json announces another number of training volumes than there are."""
    expected = (table or {}).get("numTraining")
    if type(expected) is not int or expected == count:
        return ()
    return (f"{where}: numTraining is {expected}, and there are {count} training volumes",)


def invert_labels(labels: Any, where: object) -> Any:
    """Turn labels of version 2, name -> label, into label -> name; others stay as they are.

    DatasetError for regions, lists of labels, since they overlap; and if two names have one label.
    """
    if not isinstance(labels, Mapping) or all(isinstance(value, str) for value in labels.values()):
        return labels
    regions = [name for name, value in labels.items() if isinstance(value, list) and len(value) != 1]
    if regions:
        remedy = "name the labels of the files yourself, as in --set 'labels={1: edema, 2: core}'"
        problem = f"expected one label for each name, {reprlib.repr(regions[0])} is a region of several"
        raise DatasetError(problem, where=where, remedy=remedy)
    names: dict[Any, str] = {}
    for name, value in labels.items():
        label = value[0] if isinstance(value, list) else value
        if type(label) is not int or label in names:
            expected = "a different whole number for each name"
            raise DatasetError(f"expected {expected}, got {reprlib.repr({name: value})}", where=where)
        names[label] = name
    return names
