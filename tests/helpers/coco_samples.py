"""A panoptic dataset of two images, small enough to check by eye."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet(
    [
        Category(1, "person", True, (255, 0, 0)),
        Category(3, "cat", True, (0, 255, 0)),
        Category(10, "sky", False, (0, 0, 255)),
        Category(20, "grass", False, (9, 9, 9)),
    ]
)


class Dataset(NamedTuple):
    json_path: Path
    png_folder: Path

    def load(self) -> dict:
        return json.loads(self.json_path.read_text())

    def store(self, content: object) -> Path:
        self.json_path.write_text(json.dumps(content))
        return self.json_path


def first_image() -> PanopticSegmentation:
    # 7 = a person (4 px), 300 = a crowd of cats (2 px; green byte), 70000 = sky (4 px; blue byte), 0 = void (2 px).
    segment_ids = np.array([[70000, 70000, 70000, 0], [7, 7, 70000, 0], [7, 7, 300, 300]], dtype=np.int32)
    segments = (
        Segment(300, 3, True, 2, iscrowd=True),
        Segment(7, 1, True, 4, score=0.5),
        Segment(70000, 10, False, 4),
    )
    return PanopticSegmentation(segment_ids, segments)


def second_image() -> PanopticSegmentation:
    return PanopticSegmentation(np.full((2, 5), 5, dtype=np.int32), (Segment(5, 20, False, 10),))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def spoil(content: object, choice: Callable[[int], int], junk: object) -> object:
    """`content` with one node, picked by `choice(n) -> 0..n-1` at each level, replaced by `junk`."""
    if not isinstance(content, dict | list) or not content or choice(4) == 0:
        return junk
    keys = sorted(content) if isinstance(content, dict) else range(len(content))
    key = keys[choice(len(keys))]
    changed = content.copy()
    changed[key] = spoil(content[key], choice, junk)
    return changed


JUNK = [
    None,
    True,
    -1,
    0,
    7,
    0.5,
    1e400,
    10**400,
    float("nan"),
    "",
    "..",
    "a/b",
    [],
    [[]],
    [1, 2],
    {},
    {"id": 1},
    "\ud800",
]


def count_accepted(read: Callable[[Path], object], content: object, path: Path, trials: int = 300) -> int:
    """Returns how many of `trials` fixed spoiled copies `read` accepts; other copies must raise a DatasetError."""
    accepted = 0
    for seed in range(trials):
        random = Random(seed)
        path.write_text(json.dumps(spoil(content, random.randrange, random.choice(JUNK))))
        with contextlib.suppress(DatasetError):
            read(path)
            accepted += 1
    return accepted


def rectangles(folder: Path, corners: list[tuple[float, float, float, float]]) -> None:
    """Writes a labelme image of 4 x 4 pixels with rectangles; corners: (left, top, right, bottom) of each."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "a.png")
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[x0, y0], [x1, y1]], "group_id": None, "flags": {}}
        for x0, y0, x1, y1 in corners
    ]
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": "a.png", "imageHeight": 4, "imageWidth": 4}
    (folder / "a.json").write_text(json.dumps(content))


def write_volume(path: Path, voxels: NDArray[Any]) -> None:
    """A NIfTI file of (X, Y, Z) voxels in RAS+ orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
