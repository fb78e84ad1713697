"""The output of `segkit predict` on two images: parts, a hole, a pixel, unicode names; nothing in the second image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle

CELL, DOT, WATER = 7, 90, 12
CATEGORIES = CategorySet(
    [
        Category(CELL, "Zelle ü 细胞", True, (200, 10, 10)),
        Category(WATER, "water", False, (10, 10, 200)),
        Category(DOT, "dot", True, (10, 200, 10)),
    ]
)
SIZE_HW = (6, 9)
IMAGES = (DatasetImage("s-1", "a/eins.png", SIZE_HW), DatasetImage("s-2", "b/zwei ö.png", SIZE_HW))


def build_map() -> NDArray[np.int32]:
    """5: a cell with a hole and a second part (10 pixels); 6: a dot of one pixel; 9: water (9 pixels); else void."""
    ids = np.zeros(SIZE_HW, dtype=np.int32)
    ids[1:4, 1:4] = 5
    ids[2, 2] = 0
    ids[4:6, 8] = 5
    ids[2, 6] = 6
    ids[0] = 9
    return ids


SEGMENTS = (
    Segment(5, CELL, True, 10, score=0.75),
    Segment(6, DOT, True, 1, score=0.25),
    Segment(9, WATER, False, 9),
)
CELL_MASK, DOT_MASK = build_map() == 5, build_map() == 6
# The instances: the cell, with the pixel of its hole; the dot; a dot on the cell with a low score.
WHOLE_CELL = CELL_MASK.copy()
WHOLE_CELL[2, 2] = True
LOW_DOT = np.zeros(SIZE_HW, dtype=np.bool_)
LOW_DOT[3, 1:3] = True
INSTANCES = ((CELL, 0.75, WHOLE_CELL), (DOT, 0.25, DOT_MASK), (DOT, 0.125, LOW_DOT))


def build_segmentations() -> tuple[PanopticSegmentation, PanopticSegmentation]:
    empty = PanopticSegmentation(np.zeros(SIZE_HW, dtype=np.int32), ())
    return PanopticSegmentation(build_map(), SEGMENTS), empty


def build_results() -> list[dict[str, Any]]:
    return [
        {
            "image_id": "s-1",
            "category_id": category_id,
            "bbox": [0.5, 0.25, 3.0, 4.0],
            "score": score,
            "segmentation": mask_to_rle(mask),
        }
        for category_id, score, mask in INSTANCES
    ]


def write_images(folder: Path) -> Path:
    for image in IMAGES:
        png.write(folder / image.file_name, np.full((*SIZE_HW, 3), 77, dtype=np.uint8))
    return folder


def write_panoptic(root: Path) -> None:
    with coco.PanopticWriter(root / "panoptic.json", root / "panoptic", CATEGORIES) as writer:
        for image, segmentation in zip(IMAGES, build_segmentations(), strict=True):
            writer.add(image.image_id, image.file_name, segmentation)


def write_instances(root: Path) -> None:
    entries = [{"id": i.image_id, "file_name": i.file_name, "height": 6, "width": 9} for i in IMAGES]
    results = [{"iscrowd": 0, "area": 1.0, **result} for result in build_results()]
    coco.write_instances(root / "instances.json", entries, results, CATEGORIES)


def write_evaluation(root: Path) -> None:
    """The folder inference/<dataset>."""
    write_panoptic(root)
    (root / "coco_instances_results.json").write_text(json.dumps(build_results()))


def write_run(root: Path) -> Path:
    write_panoptic(root)
    write_instances(root)
    write_images(root.parent / "images")
    return root
