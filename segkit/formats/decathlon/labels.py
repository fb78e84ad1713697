"""The labels of a Decathlon task: their names and categories, the values in volumes, and slices as segments."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats.decathlon.nifti import MAX_LABEL
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError, SegkitError
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

TABLE = "dataset.json"
BACKGROUND = 0

Labels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


def read_label_names(labels: Mapping[int | str, str] | None, table: Entry | None, root: Path) -> dict[int, str] | None:
    """The name of every label, from the option or else from dataset.json; None if neither is given.

    ConfigError for the option, DatasetError for the table: labels are not distinct integers in 0..MAX_LABEL, or a name
    is not text.
    """
    if labels is None and table is None:
        return None
    error: type[SegkitError] = DatasetError if labels is None else ConfigError
    where = root / TABLE if labels is None else "`labels`"
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


def build_categories(names: Mapping[int, str], things: Collection[str], root: Path) -> CategorySet:
    """One category per label, the background as stuff; ConfigError if `things` names anything but foreground labels."""
    names = {BACKGROUND: "background", **names}
    foreground = [name for label, name in names.items() if label != BACKGROUND]
    if unexpected := sorted({*things} - {*foreground}):
        expected = f"`things` to be among the labels {abbreviate(foreground)}"
        raise ConfigError(f"expected {expected}, got {abbreviate(unexpected)}")
    entries: list[Entry] = [
        {"id": label, "name": name, "isthing": name in things and label != BACKGROUND}
        for label, name in sorted(names.items())
    ]
    entries[0]["color"] = (0, 0, 0)  # of the background, which is first
    return CategorySet.from_coco(entries, root)


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
    labels: Labels = values.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16, copy=False)
    return labels


def check_labels(labels: Labels, categories: CategorySet, path: Path) -> Labels:
    """The labels; DatasetError if one is not a category."""
    table = np.zeros(MAX_LABEL + 1, dtype=bool)
    table[[*categories.isthing_by_id]] = True
    is_category = table.take(labels)
    if not is_category.all():
        unexpected = np.unique(labels[~is_category]).tolist()
        problem = f"expected labels among {abbreviate(categories.isthing_by_id)}, got {abbreviate(unexpected)} too"
        raise DatasetError(problem, where=path, remedy="add them to `labels`, or repair the volume")
    return labels


def build_segmentation(labels: Labels, categories: CategorySet) -> PanopticSegmentation:
    """Turn (H, W) labels into segments: one per stuff label, one per connected piece of a thing label.

    Segments are numbered from 1 by label, then by first pixel.
    """
    segment_ids = np.zeros(labels.shape, dtype=np.int32)
    segments: list[Segment] = []
    for category_id in np.unique(labels).tolist():
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
