"""Cityscapes: the tree of a split, and the 16-bit PNG of instance ids (github.com/mcordts/cityscapesScripts)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from segkit.formats import png
from segkit.formats.coco_tables import listed
from segkit.formats.derive import relabel
from segkit.structures import (
    Category,
    CategorySet,
    DatasetError,
    PanopticSegmentation,
    Segment,
    extents,
)

# A value is label id * 1000 + instance, or the bare label id (preparation/json2instanceImg.py).
INSTANCES_PER_LABEL = 1000
LAST_LABEL_ID = 33
IMAGE_SUFFIX = "_leftImg8bit.png"
IDS_SUFFIX = "_gtFine_instanceIds.png"
TREE = "expected leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_instanceIds.png"

# helpers/labels.py: the labels that are not ignored in evaluation; isthing = hasInstances.
CATEGORIES = CategorySet(
    [
        Category(7, "road", False, (128, 64, 128)),
        Category(8, "sidewalk", False, (244, 35, 232)),
        Category(11, "building", False, (70, 70, 70)),
        Category(12, "wall", False, (102, 102, 156)),
        Category(13, "fence", False, (190, 153, 153)),
        Category(17, "pole", False, (153, 153, 153)),
        Category(19, "traffic light", False, (250, 170, 30)),
        Category(20, "traffic sign", False, (220, 220, 0)),
        Category(21, "vegetation", False, (107, 142, 35)),
        Category(22, "terrain", False, (152, 251, 152)),
        Category(23, "sky", False, (70, 130, 180)),
        Category(24, "person", True, (220, 20, 60)),
        Category(25, "rider", True, (255, 0, 0)),
        Category(26, "car", True, (0, 0, 142)),
        Category(27, "truck", True, (0, 0, 70)),
        Category(28, "bus", True, (0, 60, 100)),
        Category(31, "train", True, (0, 80, 100)),
        Category(32, "motorcycle", True, (0, 0, 230)),
        Category(33, "bicycle", True, (119, 11, 32)),
    ]
)


@dataclass(frozen=True)
class CityscapesRecord:
    """One image and its ground truth; image_id is the stem they share, as in frankfurt_000000_000294."""

    image_id: str
    image_path: Path
    ids_path: Path


def scan(root: str | Path, split: str) -> list[CityscapesRecord]:
    """The images of a split, sorted by city and name.

    Raises DatasetError where a folder is missing, the split has no image, or an image has no ground truth.
    """
    images_folder, ids_folder = (Path(root) / name / split for name in ("leftImg8bit", "gtFine"))
    for folder in (images_folder, ids_folder):
        if not folder.is_dir():
            raise DatasetError("no such folder", where=folder, remedy=TREE)
    records = []
    for image_path in sorted(images_folder.glob(f"*/*{IMAGE_SUFFIX}")):
        image_id = image_path.name.removesuffix(IMAGE_SUFFIX)
        ids_path = ids_folder / image_path.parent.name / f"{image_id}{IDS_SUFFIX}"
        records.append(CityscapesRecord(image_id, image_path, ids_path))
    if not records:
        raise DatasetError("the split has no image", where=images_folder, remedy=TREE)
    bare = [record for record in records if not record.ids_path.is_file()]
    if bare:
        problem = f"{len(bare)} of {len(records)} images have no ground truth: {listed(r.image_id for r in bare)}"
        raise DatasetError(problem, where=bare[0].ids_path, remedy=TREE)
    return records


def read_segmentation(instance_ids_path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """The segments of one *_instanceIds.png; segment_id is the PNG's value, ascending, category_id is the label id.

    A bare label id of a thing is a crowd; labels ignored in evaluation become void
    (preparation/createPanopticImgs.py). Raises DatasetError where the file is missing, truncated, not a 16-bit
    greyscale PNG, not of `size_hw` pixels, or holds a value of no label.
    """
    path = Path(instance_ids_path)
    values = png.read_grey16(path, size_hw)
    found = np.unique(values, return_counts=True)
    unknown = [value for value in found[0].tolist() if _label_id(value) > LAST_LABEL_ID]
    if unknown:
        raise DatasetError(f"expected label ids in 0..{LAST_LABEL_ID}, got the values {listed(unknown)}", where=path)
    segments = []
    for value, area_px in zip(*(column.tolist() for column in found), strict=True):
        if _label_id(value) in CATEGORIES:
            isthing = CATEGORIES[_label_id(value)].isthing
            iscrowd = isthing and value < INSTANCES_PER_LABEL
            segments.append(Segment(value, _label_id(value), isthing, area_px, iscrowd))
    segment_ids = relabel(values, {s.segment_id: s.segment_id for s in segments}, np.int32)
    return PanopticSegmentation(segment_ids, tuple(segments))


def write_instance_ids(path: str | Path, segmentation: PanopticSegmentation) -> None:
    """Writes a *_instanceIds.png, whole or not at all; category_id is the label id, void becomes label 0, unlabeled.

    Segment ids that are such values already are kept, so that reading and writing undo each other; otherwise things
    are numbered from 0 in the order of the segments, and stuff and crowds of one label become one segment.
    Raises ValueError for a category that is not Cityscapes', an id in the map that no segment has, and more than
    INSTANCES_PER_LABEL instances of a label.
    """
    segments = segmentation.segments
    unknown = {s.category_id for s in segments if s.category_id not in CATEGORIES}
    if unknown:
        raise ValueError(f"segments must have Cityscapes label ids, got {sorted(unknown)}")
    strange = extents(segmentation.segment_ids).keys() - {s.segment_id for s in segments}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {listed(sorted(strange))}")
    kept = all(_is_value_of(segment) for segment in segments)
    values = {s.segment_id: s.segment_id for s in segments} if kept else _numbered(segments)
    png.write(Path(path), relabel(segmentation.segment_ids, values, np.uint16))


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
