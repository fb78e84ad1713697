"""A COCO panoptic dataset of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segkit.formats.coco import CocoPanopticReader, PanopticWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])
GROUND_TRUTH = PanopticSegmentation(
    np.array([[7, 7, 0], [30, 30, 5]], np.int32),
    (Segment(7, 3, True, 2), Segment(30, 9, False, 2), Segment(5, 3, True, 1, True)),
)


def write_panoptic(folder: Path, ground_truth: PanopticSegmentation = GROUND_TRUTH) -> CocoPanopticReader:
    """Writes a COCO panoptic dataset of one image, `a/x.png`, and opens it."""
    with PanopticWriter(folder / "p.json", folder / "p", CATEGORIES) as writer:
        writer.add("x", "a/x.png", ground_truth)
    (folder / "images" / "a").mkdir(parents=True, exist_ok=True)
    height, width = ground_truth.segment_ids.shape
    Image.fromarray(np.full((height, width, 3), 80, np.uint8)).save(folder / "images" / "a" / "x.png")
    return CocoPanopticReader(folder / "p.json", folder / "p", folder / "images")


def compare_key(ground_truth: PanopticSegmentation) -> set[tuple[int, bool, tuple[int, ...]]]:
    """Returns the segments without their ids: {(category_id, iscrowd, indices of the pixels)}."""
    ids = ground_truth.segment_ids.ravel()
    return {(s.category_id, s.iscrowd, tuple(np.flatnonzero(ids == s.segment_id))) for s in ground_truth.segments}
