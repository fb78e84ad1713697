"""Cityscapes' label PNGs, read as segmentations and made from segmentations.

*_instanceIds.png has 16 bits; a value is label id * 1000 + instance number, or the label id alone for stuff and for
crowds (preparation/json2instanceImg.py). *_labelIds.png and *_labelTrainIds.png hold one value per class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.cityscapes.labels import CATEGORIES, LABEL_ID_BY_TRAIN_ID, LAST_LABEL_ID
from segkit.formats.derive import relabel
from segkit.structures import IGNORE_LABEL, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

IMAGE_SUFFIX = "_leftImg8bit.png"
INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"
LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"  # preparation/createTrainIdLabelImgs.py
INSTANCES_PER_LABEL = 1000


def read_segmentation(instance_ids_path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """Read the segments of one *_instanceIds.png.

    Args:
        instance_ids_path: 16-bit greyscale PNG.
        size_hw: Expected height and width in pixels; None accepts any size.

    Returns:
        Segments in ascending order; segment_id is the value in the PNG, category_id is the label id. A thing without
        instance number is a crowd. Labels that the evaluation ignores are void (preparation/createPanopticImgs.py).

    Raises:
        DatasetError: The file is missing, truncated, not a 16-bit greyscale PNG, of another size, or holds a value
            that belongs to no label.
    """
    path = Path(instance_ids_path)
    return build_segmentation(png.read_grey16(path, size_hw), path)


def read_label_id_segmentation(path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """Read the classes of one *_labelIds.png: one segment per class, the label id as segment_id; things are crowds.

    Args:
        path: Greyscale or palette PNG.
        size_hw: Expected height and width in pixels; None accepts any size.

    Returns:
        The segmentation; labels that the evaluation ignores are void.

    Raises:
        DatasetError: The file is missing, damaged, not a label map, of another size, or holds a value of no label.
    """
    labels = png.read_labels(path, size_hw).astype(np.int32)
    if (unexpected := np.unique(labels[labels > LAST_LABEL_ID])).size:  # otherwise read as instance ids
        problem = f"expected label ids in 0..{LAST_LABEL_ID}, got {abbreviate(unexpected.tolist())}"
        raise DatasetError(problem, where=path)
    return build_segmentation(labels, path)


def read_train_id_segmentation(path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """Read the classes of one *_labelTrainIds.png, 0..18 and `IGNORE_LABEL` for void.

    Args:
        path: Greyscale or palette PNG.
        size_hw: Expected height and width in pixels; None accepts any size.

    Returns:
        The segmentation that `read_label_id_segmentation` gives for the same classes.

    Raises:
        DatasetError: As `read_label_id_segmentation`, and for a value that is no train id.
    """
    train_ids = png.read_labels(path, size_hw)
    label_ids = LABEL_ID_BY_TRAIN_ID | {IGNORE_LABEL: 0}
    if unexpected := sorted({*np.unique(train_ids).tolist()} - {*label_ids}):
        expected = f"train ids in 0..{len(LABEL_ID_BY_TRAIN_ID) - 1} or {IGNORE_LABEL}"
        raise DatasetError(f"expected {expected}, got {abbreviate(unexpected)}", where=path)
    lookup = np.zeros(IGNORE_LABEL + 1, dtype=np.int32)
    lookup[[*label_ids]] = [*label_ids.values()]
    return build_segmentation(lookup[train_ids], path)


def build_segmentation(values: NDArray[np.int32], where: object) -> PanopticSegmentation:
    """Turn (H, W) values of an *_instanceIds.png into segments, as `read_segmentation` does; where: for messages."""
    areas_px = dict(zip(*(column.tolist() for column in np.unique(values, return_counts=True)), strict=True))
    unexpected = [value for value in areas_px if _get_label_id(value) > LAST_LABEL_ID]
    if unexpected:
        problem = f"expected label ids in 0..{LAST_LABEL_ID}, got the values {abbreviate(unexpected)}"
        raise DatasetError(problem, where=where)
    segments = []
    for value, area_px in areas_px.items():
        label_id = _get_label_id(value)
        if label_id in CATEGORIES:
            isthing = CATEGORIES[label_id].isthing
            segments.append(Segment(value, label_id, isthing, area_px, isthing and value < INSTANCES_PER_LABEL))
    segment_ids = relabel(values, {s.segment_id: s.segment_id for s in segments}, np.int32)
    return PanopticSegmentation(segment_ids, tuple(segments))


def encode_instance_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint16]:
    """Compute the pixels of an *_instanceIds.png.

    Segment ids that already are such values are kept, so that a file that is read and written stays the same. Otherwise
    the instances of a label are numbered from 0 in the order of the segments; stuff and crowds of one label become one.

    Args:
        segmentation: (H, W) segments whose category ids are label ids; void becomes label 0, unlabeled.

    Returns:
        (H, W) uint16 values.

    Raises:
        ValueError: A category is not one of Cityscapes', the map holds an id that no segment has, or a label has more
            than INSTANCES_PER_LABEL instances.
    """
    _check(segmentation)
    value_by_segment = compute_instance_values(segmentation.segments)
    return relabel(segmentation.segment_ids, value_by_segment, np.uint16)


def compute_instance_values(segments: Sequence[Segment]) -> dict[int, int]:
    """segment_id -> value in an *_instanceIds.png, as `encode_instance_ids` writes it."""
    if all(_is_own_value(segment) for segment in segments):
        return {s.segment_id: s.segment_id for s in segments}
    counters = {category.category_id: count() for category in CATEGORIES.things}
    values = {}
    for segment in segments:
        value = segment.category_id
        if value in counters and not segment.iscrowd:
            number = next(counters[value])
            if number >= INSTANCES_PER_LABEL:
                name = CATEGORIES[value].name
                raise ValueError(f"an image must have at most {INSTANCES_PER_LABEL} instances of {name}")
            value = value * INSTANCES_PER_LABEL + number
        values[segment.segment_id] = value
    return values


def encode_label_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint8]:
    """(H, W) uint8 pixels of a *_labelIds.png, 0 for void; ValueError as `encode_instance_ids`."""
    _check(segmentation)
    values = {s.segment_id: s.category_id for s in segmentation.segments}
    return relabel(segmentation.segment_ids, values, np.uint8)


def encode_train_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint8]:
    """(H, W) uint8 pixels of a *_labelTrainIds.png, `IGNORE_LABEL` for void; ValueError as `encode_instance_ids`.

    Things, crowds and stuff get the train id of their label (preparation/createTrainIdLabelImgs.py).
    """
    lookup = np.full(LAST_LABEL_ID + 1, IGNORE_LABEL, dtype=np.uint8)
    lookup[[*LABEL_ID_BY_TRAIN_ID.values()]] = [*LABEL_ID_BY_TRAIN_ID]
    return lookup[encode_label_ids(segmentation)]


def _check(segmentation: PanopticSegmentation) -> None:
    segments = segmentation.segments
    unexpected = {s.category_id for s in segments if s.category_id not in CATEGORIES}
    if unexpected:
        raise ValueError(f"segments must have Cityscapes label ids, got {sorted(unexpected)}")
    unexpected = segmentation.runs.extents().keys() - {s.segment_id for s in segments}
    if unexpected:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(unexpected))}")


def _get_label_id(value: int) -> int:
    return value if value < INSTANCES_PER_LABEL else value // INSTANCES_PER_LABEL


def _is_own_value(segment: Segment) -> bool:
    """Whether the segment id is a value that means this segment."""
    has_no_number = segment.segment_id < INSTANCES_PER_LABEL
    is_numbered_right = not CATEGORIES[segment.category_id].isthing or has_no_number == segment.iscrowd
    return _get_label_id(segment.segment_id) == segment.category_id and is_numbered_right
