"""Slices of a Decathlon volume: how they are cut, and their labels as segments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

MAX_LABEL = 2**16 - 1

Labels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


def cut(voxels: NDArray[Any], axis: int) -> NDArray[Any]:
    """(X, Y, Z, ...) -> (slices, H, W, ...), a view; the first of the other axes to the right, the second upwards."""
    return np.rot90(np.moveaxis(voxels, axis, 0), axes=(1, 2))


def uncut(slices: NDArray[Any], axis: int) -> NDArray[Any]:
    """What `cut` undoes: (slices, H, W, ...) -> (X, Y, Z, ...), a view."""
    return np.moveaxis(np.rot90(slices, -1, axes=(1, 2)), 0, axis)


def to_labels(values: NDArray[Any], path: Path) -> Labels:
    """The voxels of a label volume as integers; DatasetError where one is no whole number in 0..MAX_LABEL."""
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


def checked_labels(labels: Labels, categories: CategorySet, path: Path) -> Labels:
    """The labels; DatasetError where one is no category."""
    table = np.zeros(MAX_LABEL + 1, dtype=bool)
    table[[*categories.isthing_by_id]] = True
    known = table.take(labels)
    if not known.all():
        strange = np.unique(labels[~known]).tolist()
        problem = f"expected labels among {abbreviate(categories.isthing_by_id)}, got {abbreviate(strange)} too"
        raise DatasetError(problem, where=path, remedy="add them to `labels`, or repair the volume")
    return labels


def segmentation_of(labels: Labels, categories: CategorySet) -> PanopticSegmentation:
    """(H, W) labels as segments: one per label of stuff, one per connected piece of things; numbered from 1 by label,
    then by first pixel."""
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
