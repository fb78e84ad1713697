"""Small clean datasets, and how to break them."""

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
# (8 px); 70000 = sky, row 0 (8 px); 5 = grass, rows 1 to 3, columns 0 to 6 but the person (12 px); else void.
PERSON, CROWD, SKY, GRASS = 7, 300, 70000, 5


class Broken(NamedTuple):
    """A dataset that a test may break: its paths, and changes of its JSON."""

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
    made = Broken(folder / "panoptic.json", folder / "masks", folder / "images")
    write_images(made.images)
    with PanopticWriter(made.json_path, made.masks, CATEGORIES) as writer:
        for index in range(IMAGES):
            writer.add(index, f"{index}.png", scene())
    return made


def instances(folder: Path) -> Broken:
    """Of every image: a person as a polygon, a crowd as run lengths."""
    made = Broken(folder / "instances.json", folder / "masks", folder / "images")
    write_images(made.images)
    entries, annotations = [], []
    for index in range(IMAGES):
        entries.append({"id": index, "file_name": f"{index}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]})
        person, crowd = build_coco_annotations(index, scene())
        person["segmentation"] = [[1, 1, 4, 1, 4, 4, 1, 4]]
        annotations += [person, crowd]
    coco.write_instances(made.json_path, entries, annotations, CATEGORIES)
    return made


def junk(content: object) -> Iterator[object]:
    """The content with each of its nodes in turn replaced by each kind of junk."""
    values = [None, True, -1, 10**400, float("nan"), "", "\ud800", [], [[1]], {}, {"id": 1}]
    yield from values
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        for replaced in junk(content[key]):
            copy = content.copy()
            copy[key] = replaced
            yield copy
