"""The options of the volumes' reader, checked, and the categories and lines that follow from them."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.formats.decathlon import nnunet
from segkit.formats.decathlon.files import TABLE
from segkit.formats.decathlon.nifti import MAX_LABEL
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError, DatasetError, SegkitError
from segkit.utils.json_fields import INTEGER, NUMBER, TEXT, Entry
from segkit.utils.text import abbreviate, suggest

SPLITS = ("train", "val", "all", "test")
BACKGROUND = 0  # the label
# Of NSD, in mm: Antonelli et al. 2022, "The Medical Segmentation Decathlon", one value for all labels of a task.
TOLERANCES_MM = {
    "BrainTumour": 5.0,
    "Heart": 4.0,
    "Liver": 7.0,
    "Hippocampus": 1.0,
    "Prostate": 4.0,
    "Lung": 2.0,
    "Pancreas": 5.0,
    "HepaticVessel": 3.0,
    "Spleen": 3.0,
    "Colon": 4.0,
}
TASK_FOLDER = re.compile(r"(?:Task|Dataset)[0-9]+_(\w+)")  # of the Decathlon, and of nnU-Net


def check_options(
    axis: Any, split: Any, val_share: Any, held_out: Any, things: Any, modalities: Any, percentiles: Any, empty: Any
) -> None:
    """ConfigError for the first option that is invalid."""
    is_modalities = _is_list(modalities, INTEGER) and min(modalities, default=0) >= 0
    is_percentiles = _is_list(percentiles, NUMBER) and len(percentiles) == 2
    is_percentiles = is_percentiles and 0 <= percentiles[0] < percentiles[1] <= 100
    checks = (
        ("axis", axis, type(axis) is int and axis in (0, 1, 2), "0, 1 or 2"),
        ("split", split, split in SPLITS, f"one of {', '.join(SPLITS)}"),
        ("val_share", val_share, type(val_share) in NUMBER and 0 <= val_share <= 1, "in 0..1"),
        ("keep_empty", empty, type(empty) is bool, "true or false"),
        ("held_out", held_out, _is_list(held_out, TEXT, Collection), "a list of names"),
        ("things", things, _is_list(things, TEXT, Collection), "a list of names"),
        ("modalities", modalities, is_modalities, "a list of numbers from 0"),
        ("percentiles", percentiles, is_percentiles, "two rising numbers in 0..100"),
    )
    for key, value, is_valid, expected in checks:
        if not is_valid:
            remedy = suggest(value, SPLITS) if key == "split" else ""
            raise ConfigError(f"expected `{key}` to be {expected}, got {reprlib.repr(value)}", remedy=remedy)


def find_tolerance(tolerance_mm: Any, root: Path) -> float | None:
    """The tolerance of NSD in mm: the option, or that of the Decathlon's task which the folder is named after, or None.

    ConfigError if the option is invalid.
    """
    if tolerance_mm is None:
        folder = TASK_FOLDER.fullmatch(os.path.basename(os.path.abspath(root)))
        return TOLERANCES_MM.get(folder[1]) if folder else None
    if type(tolerance_mm) not in NUMBER or not 0 <= tolerance_mm < math.inf:
        raise ConfigError(f"expected `tolerance_mm` to be millimetres, 0 or more, got {reprlib.repr(tolerance_mm)}")
    return float(tolerance_mm)


def _is_list(value: Any, types: tuple[type, ...], kind: Any = Sequence) -> bool:
    return isinstance(value, kind) and not isinstance(value, str) and all(type(part) in types for part in value)


def read_label_names(labels: Mapping[int | str, str] | None, table: Entry | None, root: Path) -> dict[int, str] | None:
    """The name of every label, from the option or else from dataset.json; None if neither is given.

    ConfigError for the option, DatasetError for the table: labels are not distinct integers in 0..MAX_LABEL, or a name
    is not text.
    """
    if labels is None and table is None:
        return None
    error: type[SegkitError] = DatasetError if labels is None else ConfigError
    where = root / TABLE if labels is None else "`labels`"
    given = labels
    if labels is None and table is not None:
        given = nnunet.invert_labels(table.get("labels"), where)
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


def build_categories(names: Mapping[int, str], things: Collection[str], root: Path) -> CategorySet:
    """One category per label, the background as stuff; ConfigError if `things` names anything but foreground labels."""
    names = {BACKGROUND: "background", **names}
    foreground = [name for label, name in names.items() if label != BACKGROUND]
    if unexpected := sorted({*things} - {*foreground}):
        expected = f"`things` to be among the labels {abbreviate(foreground)}"
        remedy = suggest(unexpected[0], foreground)
        raise ConfigError(f"expected {expected}, got {abbreviate(unexpected)}", remedy=remedy)
    entries: list[Entry] = [
        {"id": label, "name": name, "isthing": name in things and label != BACKGROUND}
        for label, name in sorted(names.items())
    ]
    entries[0]["color"] = (0, 0, 0)  # of the background, which is first
    return CategorySet.from_coco(entries, root)
