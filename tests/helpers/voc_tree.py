"""Writes a small VOC tree with Pillow only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segkit.formats.voc import CLASS_NAMES
from segkit.structures import Category, CategorySet, Segment

# A cat (8) and two persons (15) of labels 3, 1 and 4 (2 is no object here: objects are numbered over all annotations,
# masked or not), void around the cat.
CLASS_LABELS = [[0, 255, 255, 255, 0], [0, 255, 8, 255, 15], [15, 255, 255, 255, 15]]
OBJECT_LABELS = [[0, 255, 255, 255, 0], [0, 255, 3, 255, 1], [4, 255, 255, 255, 1]]
IDS = [[255, 0, 0, 0, 255], [255, 0, 3, 0, 1], [4, 0, 0, 0, 1]]
SEGMENTS = (
    Segment(1, 15, True, 2),
    Segment(3, 8, True, 1),
    Segment(4, 15, True, 1),
    Segment(255, 0, False, 3),
)
VOC_CATEGORIES = CategorySet(
    [
        Category(0, "background", False, (0, 0, 0)),
        *(Category(i, n, True, (0, 0, 0)) for i, n in enumerate(CLASS_NAMES, 1)),
    ]
)


def store_labels(path: Path, labels: object) -> None:
    """Writes a palette PNG with Pillow, without the code under test."""
    image = Image.fromarray(np.array(labels, dtype=np.uint8))
    image.putpalette([(i * 7) % 256 for i in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def store_image(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_hw[::-1], (200, 30, 30)).save(path)


def add_image(
    root: Path, image_id: str, class_labels: object = CLASS_LABELS, object_labels: object = OBJECT_LABELS
) -> None:
    store_labels(root / f"SegmentationClass/{image_id}.png", class_labels)
    store_labels(root / f"SegmentationObject/{image_id}.png", object_labels)
    store_image(root / f"JPEGImages/{image_id}.jpg", np.shape(class_labels))


def store_set(root: Path, content: str | bytes, split: str = "train") -> None:
    path = root / f"ImageSets/Segmentation/{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
