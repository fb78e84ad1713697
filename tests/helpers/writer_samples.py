"""An image with things, a crowd, stuff and void, for formats that cannot hold all of them."""

from __future__ import annotations

import numpy as np

from segkit.formats.base import DatasetImage
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle

CATEGORIES = CategorySet([Category(5, "car", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])
# Two cars, one with a score, one without a pixel; a crowd of cars; sky; a void pixel.
SEGMENTS = (
    Segment(1, 5, True, 1, score=0.5),
    Segment(2, 5, True, 1),
    Segment(3, 5, True, 1, iscrowd=True),
    Segment(4, 9, False, 2),
    Segment(7, 5, True, 0),
)
GROUND_TRUTH = PanopticSegmentation(np.array([[1, 2, 3], [4, 4, 0]], np.int32), SEGMENTS)
IMAGE = DatasetImage("x", "sub/x.jpg", (2, 3))

COVERED = {"category_id": 5, "segmentation": mask_to_rle(np.array([[1, 1, 0], [0, 0, 0]], bool))}
OVERLAP = "annotations: 2 pixels under other masks cannot be held"
