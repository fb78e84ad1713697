"""Cityscapes: the tree of a split, and the 16-bit PNG of instance ids (github.com/mcordts/cityscapesScripts)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.derive import relabel
from segkit.structures import IGNORE_LABEL, Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, report_unpaired
from segkit.utils.text import abbreviate

# A value is label id * 1000 + instance, or the bare label id (preparation/json2instanceImg.py).
INSTANCES_PER_LABEL = 1000
IMAGE_SUFFIX = "_leftImg8bit.png"
INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"


class Label(NamedTuple):
    """A row of helpers/labels.py; train_id is `IGNORE_LABEL` where a network is not to learn it, color is RGB."""

    label_id: int
    name: str
    train_id: int
    has_instances: bool
    ignored: bool  # in evaluation
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
LAST_LABEL_ID = LABELS[-2].label_id  # the last row, license plate, has no id and is not drawn
CATEGORIES = CategorySet([Category(x.label_id, x.name, x.has_instances, x.color) for x in LABELS if not x.ignored])


@dataclass(frozen=True)
class CityscapesRecord:
    """One image and its ground truth; image_id is the stem they share, as in frankfurt_000000_000294.

    ground_truth_path: the PNG of instance ids, or the file that `scan` was asked for.
    """

    image_id: str
    image_path: Path
    ground_truth_path: Path


def find_records(
    root: str | Path, split: str, suffix: str = INSTANCE_IDS_SUFFIX, on_issue: IssueHandler = raise_issue
) -> list[CityscapesRecord]:
    """The images of a split, sorted by city and name, and their files in gtFine whose names end in `suffix`.

    tell: gets each image that has no ground truth, and ground truth that has no image, and by default raises; where it
    returns, the image is left out. Raises DatasetError where a folder is missing or the split has no image.
    """
    tree = f"expected leftImg8bit/<split>/<city>/*{IMAGE_SUFFIX} and gtFine/<split>/<city>/*{suffix}"
    images_folder, ids_folder = (Path(root) / name / split for name in ("leftImg8bit", "gtFine"))
    for folder in (images_folder, ids_folder):
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
            raise DatasetError("no such folder", where=folder, remedy=tree)
    images, ground_truth = find_city_files(images_folder, IMAGE_SUFFIX), find_city_files(ids_folder, suffix)
    if not images:
        raise DatasetError("the split has no image", where=images_folder, remedy=tree)
    records = [
        CityscapesRecord(name.split("/")[1], path, ids_folder / f"{name}{suffix}") for name, path in images.items()
    ]
    bare = report_missing(
        on_issue, "png-missing", "ground truth", [record.ground_truth_path for record in records], tree
    )
    report_unpaired(on_issue, "image-missing", "the ground truth has no image", ground_truth, images, tree)
    return [record for record in records if record.ground_truth_path not in bare]


def find_city_files(folder: Path, suffix: str = IMAGE_SUFFIX) -> dict[str, Path]:
    """The files `<city>/<image_id><suffix>` of a split's folder by `<city>/<image_id>`, sorted by path; hidden files
    are passed over."""
    paths = sorted(path for path in folder.glob(f"*/*{suffix}") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in paths}


def read_segmentation(instance_ids_path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """The segments of one *_instanceIds.png; segment_id is the PNG's value, ascending, category_id is the label id.

    A bare label id of a thing is a crowd; labels ignored in evaluation become void
    (preparation/createPanopticImgs.py). Raises DatasetError where the file is missing, truncated, not a 16-bit
    greyscale PNG, not of `size_hw` pixels, or holds a value of no label.
    """
    path = Path(instance_ids_path)
    return build_segmentation(png.read_grey16(path, size_hw), path)


def build_segmentation(values: NDArray[np.int32], where: object) -> PanopticSegmentation:
    """What (H, W) int32 values of an *_instanceIds.png mean, as in `read_segmentation`; where: for messages."""
    found = np.unique(values, return_counts=True)
    unknown = [value for value in found[0].tolist() if _label_id(value) > LAST_LABEL_ID]
    if unknown:
        raise DatasetError(
            f"expected label ids in 0..{LAST_LABEL_ID}, got the values {abbreviate(unknown)}", where=where
        )
    segments = []
    for value, area_px in zip(*(column.tolist() for column in found), strict=True):
        if _label_id(value) in CATEGORIES:
            isthing = CATEGORIES[_label_id(value)].isthing
            iscrowd = isthing and value < INSTANCES_PER_LABEL
            segments.append(Segment(value, _label_id(value), isthing, area_px, iscrowd))
    segment_ids = relabel(values, {s.segment_id: s.segment_id for s in segments}, np.int32)
    return PanopticSegmentation(segment_ids, tuple(segments))


def encode_instance_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint16]:
    """(H, W) uint16 values of an *_instanceIds.png; category_id is the label id, void becomes label 0, unlabeled.

    Segment ids that are such values already are kept, so that reading and writing undo each other; otherwise things
    are numbered from 0 in the order of the segments, and stuff and crowds of one label become one segment.
    Raises ValueError for a category that is not Cityscapes', an id in the map that no segment has, and more than
    INSTANCES_PER_LABEL instances of a label.
    """
    _check(segmentation)
    values: NDArray[np.uint16] = relabel(
        segmentation.segment_ids, compute_instance_values(segmentation.segments), np.uint16
    )
    return values


def compute_instance_values(segments: tuple[Segment, ...]) -> dict[int, int]:
    """segment_id -> value in an *_instanceIds.png, as `encode_instance_ids` writes it; segments of one value merge."""
    kept = all(_is_value_of(segment) for segment in segments)
    return {s.segment_id: s.segment_id for s in segments} if kept else _numbered(segments)


def encode_label_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint8]:
    """(H, W) uint8 label ids of a *_labelIds.png, void is 0, unlabeled; ValueError as `encode_instance_ids`."""
    _check(segmentation)
    values = {s.segment_id: s.category_id for s in segmentation.segments}
    labels: NDArray[np.uint8] = relabel(segmentation.segment_ids, values, np.uint8)
    return labels


def encode_train_ids(segmentation: PanopticSegmentation) -> NDArray[np.uint8]:
    """(H, W) uint8 of a *_labelTrainIds.png: 0..18, void is `IGNORE_LABEL`; ValueError as `encode_instance_ids`.

    Things, crowds too, and stuff have the train id of their label (preparation/createTrainIdLabelImgs.py).
    """
    lookup = np.full(LAST_LABEL_ID + 1, IGNORE_LABEL, dtype=np.uint8)
    for label in LABELS:
        if not label.ignored:
            lookup[label.label_id] = label.train_id
    return lookup[encode_label_ids(segmentation)]


def _check(segmentation: PanopticSegmentation) -> None:
    segments = segmentation.segments
    unknown = {s.category_id for s in segments if s.category_id not in CATEGORIES}
    if unknown:
        raise ValueError(f"segments must have Cityscapes label ids, got {sorted(unknown)}")
    strange = segmentation.runs.extents().keys() - {s.segment_id for s in segments}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(strange))}")


def _label_id(value: int) -> int:
    return value if value < INSTANCES_PER_LABEL else value // INSTANCES_PER_LABEL


def _is_value_of(segment: Segment) -> bool:
    bare = segment.segment_id < INSTANCES_PER_LABEL
    numbered_right = not _isthing(segment) or bare == segment.iscrowd
    return _label_id(segment.segment_id) == segment.category_id and numbered_right


def _isthing(segment: Segment) -> bool:
    return CATEGORIES[segment.category_id].isthing


def _numbered(segments: tuple[Segment, ...]) -> dict[int, int]:
    instances = {category.category_id: count() for category in CATEGORIES.things}
    values = {}
    for segment in segments:
        label_id = segment.category_id
        if segment.iscrowd or not _isthing(segment):
            values[segment.segment_id] = label_id
            continue
        instance = next(instances[label_id])
        if instance >= INSTANCES_PER_LABEL:
            name = CATEGORIES[label_id].name
            raise ValueError(f"an image must have at most {INSTANCES_PER_LABEL} instances of {name}")
        values[segment.segment_id] = label_id * INSTANCES_PER_LABEL + instance
    return values
