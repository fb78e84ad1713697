"""Small clean datasets, and changes that damage them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segkit.formats import coco
from segkit.formats.coco import PanopticWriter
from segkit.formats.derive import build_coco_annotations
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CATEGORIES = CategorySet(
    [
        Category(1, "person", True, (255, 0, 0)),
        Category(3, "cat", True, (0, 255, 0)),
        Category(10, "sky", False, (0, 0, 255)),
        Category(20, "grass", False, (9, 9, 9)),
    ]
)
SIZE_HW = (6, 8)
IMAGES = 6
# In every image: 7 = a person, rows 1 to 3, columns 1 to 3 (9 px); 300 = a crowd of cats, rows 4 and 5, columns 4 to 7
# (8 px); 70000 = sky, row 0 (8 px); 5 = grass, rows 1 to 3, columns 0 to 6 without the person (12 px); else void.
PERSON, CROWD, SKY, GRASS = 7, 300, 70000, 5


class Broken(NamedTuple):
    """The paths of a dataset that a test may damage; loads and stores its JSON."""

    json_path: Path
    masks: Path
    images: Path

    def load(self) -> Any:
        return json.loads(self.json_path.read_text())

    def store(self, content: object) -> None:
        self.json_path.write_text(json.dumps(content))

    def png(self, index: int = 0) -> Path:
        return self.masks / f"{index}.png"

    def image_path(self, index: int = 0) -> Path:
        return self.images / f"{index}.png"


def scene() -> PanopticSegmentation:
    ids = np.zeros(SIZE_HW, dtype=np.int32)
    ids[0] = SKY
    ids[1:4, :7] = GRASS
    ids[1:4, 1:4] = PERSON
    ids[4:, 4:] = CROWD
    segments = (
        Segment(PERSON, 1, True, 9),
        Segment(CROWD, 3, True, 8, iscrowd=True),
        Segment(SKY, 10, False, 8),
        Segment(GRASS, 20, False, 12),
    )
    return PanopticSegmentation(ids, segments)


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*SIZE_HW, 3)).astype(np.uint8)


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(IMAGES):
        Image.fromarray(noise(index)).save(folder / f"{index}.png")


def panoptic(folder: Path) -> Broken:
    dataset = Broken(folder / "panoptic.json", folder / "masks", folder / "images")
    write_images(dataset.images)
    with PanopticWriter(dataset.json_path, dataset.masks, CATEGORIES) as writer:
        for index in range(IMAGES):
            writer.add(index, f"{index}.png", scene())
    return dataset


def instances(folder: Path) -> Broken:
    """Writes a dataset whose images have a person as a polygon and a crowd as run lengths."""
    dataset = Broken(folder / "instances.json", folder / "masks", folder / "images")
    write_images(dataset.images)
    entries, annotations = [], []
    for index in range(IMAGES):
        entries.append({"id": index, "file_name": f"{index}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]})
        person, crowd = build_coco_annotations(index, scene())
        person["segmentation"] = [[1, 1, 4, 1, 4, 4, 1, 4]]
        annotations += [person, crowd]
    coco.write_instances(dataset.json_path, entries, annotations, CATEGORIES)
    return dataset


def junk(content: object) -> Iterator[object]:
    """Yields copies of the content, each with one node replaced by a junk value."""
    values = [None, True, -1, 10**400, float("nan"), "", "\ud800", [], [[1]], {}, {"id": 1}]
    yield from values
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        for replacement in junk(content[key]):
            copy = content.copy()
            copy[key] = replacement
            yield copy
