"""What several fusion methods make of the same images, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats.image_io import read_picture
from segkit.report.grid import picture_grid
from segkit.report.overlay import draw_panoptic
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError

Columns = Mapping[str, PanopticSegmentation]


def fusion_grid(rows: Sequence[tuple[str, Path, Columns]], categories: CategorySet) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a row for each (title, image file, title -> segmentation), the image in front.

    Segmentations have category ids of the dataset; a row without one of the titles has a blank there. DatasetError
    where an image is missing, unreadable or of another size than its segmentations.
    """
    titles = [*dict.fromkeys(title for _, _, made in rows for title in made)]
    pictures = []
    for _, path, made in rows:
        image = read_picture(path)
        cells = [image]
        for title in titles:
            segmentation = made.get(title)
            if segmentation is not None and segmentation.segment_ids.shape != image.shape[:2]:
                expected, got = segmentation.segment_ids.shape, image.shape[:2]
                raise DatasetError(f"expected an image of {expected} pixels, as was fused, got {got}", where=path)
            cells.append(
                np.full_like(image, 255) if segmentation is None else draw_panoptic(image, segmentation, categories)
            )
        pictures.append(cells)
    return picture_grid(pictures, ["image", *titles], [title for title, _, _ in rows])
