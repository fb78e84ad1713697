"""Cityscapes' labels, and its label PNGs, read as segmentations and made from segmentations.

The labels are those of cityscapesscripts' helpers/labels.py (github.com/mcordts/cityscapesScripts). The comments of
this package name files of cityscapesscripts.

*_instanceIds.png has 16 bits; a value is label id * 1000 + instance number, or the label id alone for stuff and for
crowds (preparation/json2instanceImg.py). *_labelIds.png and *_labelTrainIds.png hold one value per class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.derive import relabel
from segkit.structures import IGNORE_LABEL, Category, CategorySet, IdRuns, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

IMAGE_SUFFIX = "_leftImg8bit.png"
INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"
LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"  # preparation/createTrainIdLabelImgs.py
INSTANCES_PER_LABEL = 1000


class Label(NamedTuple):
    """A row of helpers/labels.py.

    Attributes:
        label_id: Value in *_labelIds.png, 0..33; -1 for a label that is never drawn.
        name: Name of the class.
        train_id: Value in *_labelTrainIds.png, 0..18; 255 or -1 for a class that a network does not learn.
        has_instances: Whether the class is a thing.
        ignored: Whether the evaluation leaves the class out.
        color: RGB, 0..255.
    """

    label_id: int
    name: str
    train_id: int
    has_instances: bool
    ignored: bool
    color: tuple[int, int, int]


LABELS = (
    Label(0, "unlabeled", 255, False, True, (0, 0, 0)),
    Label(1, "ego vehicle", 255, False, True, (0, 0, 0)),
    Label(2, "rectification border", 255, False, True, (0, 0, 0)),
    Label(3, "out of roi", 255, False, True, (0, 0, 0)),
    Label(4, "static", 255, False, True, (0, 0, 0)),
    Label(5, "dynamic", 255, False, True, (111, 74, 0)),
    Label(6, "ground", 255, False, True, (81, 0, 81)),
    Label(7, "road", 0, False, False, (128, 64, 128)),
    Label(8, "sidewalk", 1, False, False, (244, 35, 232)),
    Label(9, "parking", 255, False, True, (250, 170, 160)),
    Label(10, "rail track", 255, False, True, (230, 150, 140)),
    Label(11, "building", 2, False, False, (70, 70, 70)),
    Label(12, "wall", 3, False, False, (102, 102, 156)),
    Label(13, "fence", 4, False, False, (190, 153, 153)),
    Label(14, "guard rail", 255, False, True, (180, 165, 180)),
    Label(15, "bridge", 255, False, True, (150, 100, 100)),
    Label(16, "tunnel", 255, False, True, (150, 120, 90)),
    Label(17, "pole", 5, False, False, (153, 153, 153)),
    Label(18, "polegroup", 255, False, True, (153, 153, 153)),
    Label(19, "traffic light", 6, False, False, (250, 170, 30)),
    Label(20, "traffic sign", 7, False, False, (220, 220, 0)),
    Label(21, "vegetation", 8, False, False, (107, 142, 35)),
    Label(22, "terrain", 9, False, False, (152, 251, 152)),
    Label(23, "sky", 10, False, False, (70, 130, 180)),
    Label(24, "person", 11, True, False, (220, 20, 60)),
    Label(25, "rider", 12, True, False, (255, 0, 0)),
    Label(26, "car", 13, True, False, (0, 0, 142)),
    Label(27, "truck", 14, True, False, (0, 0, 70)),
    Label(28, "bus", 15, True, False, (0, 60, 100)),
    Label(29, "caravan", 255, True, True, (0, 0, 90)),
    Label(30, "trailer", 255, True, True, (0, 0, 110)),
    Label(31, "train", 16, True, False, (0, 80, 100)),
    Label(32, "motorcycle", 17, True, False, (0, 0, 230)),
    Label(33, "bicycle", 18, True, False, (119, 11, 32)),
    Label(-1, "license plate", -1, False, True, (0, 0, 142)),
)
LAST_LABEL_ID = LABELS[-2].label_id  # the last row, license plate, has no id
CATEGORIES = CategorySet([Category(x.label_id, x.name, x.has_instances, x.color) for x in LABELS if not x.ignored])
LABEL_ID_BY_TRAIN_ID = {x.train_id: x.label_id for x in LABELS if not x.ignored}


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
    return build_segmentation(relabel(train_ids, label_ids, np.int32), path)


def build_segmentation(values: NDArray[np.int32], where: object) -> PanopticSegmentation:
    """Turn (H, W) values of an *_instanceIds.png into segments, as `read_segmentation` does; where: for messages."""
    areas_px = IdRuns.from_map(values).areas_px()
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
    train_ids = dict.fromkeys(range(LAST_LABEL_ID + 1), IGNORE_LABEL)
    train_ids |= {label_id: train_id for train_id, label_id in LABEL_ID_BY_TRAIN_ID.items()}
    return relabel(encode_label_ids(segmentation), train_ids, np.uint8)


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
