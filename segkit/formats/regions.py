"""The segments and instances of an image as crops, for formats that hold shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats.base import SCORE
from segkit.structures import PanopticSegmentation, segmentation_to_rle


@dataclass(frozen=True, eq=False)
class Region:
    """One segment or instance.

    Attributes:
        category_id: category_id of the dataset.
        isthing: whether the class is a thing.
        iscrowd: whether it is a crowd.
        score: score of a prediction, else None.
        crop: (h, w) bool, the pixels in the tight box.
        corner_xy: (left, top) of the crop in the image.
    """

    category_id: int
    isthing: bool
    iscrowd: bool
    score: float | None
    crop: NDArray[np.bool_]
    corner_xy: tuple[int, int]

    def paint(self, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
        """Paint the whole mask.

        Args:
            size_hw: (height, width) of the image in pixels.

        Returns:
            (H, W) bool.
        """
        mask = np.zeros(size_hw, dtype=np.bool_)
        (left, top), (height, width) = self.corner_xy, self.crop.shape
        mask[top : top + height, left : left + width] = self.crop
        return mask


def iterate_regions(
    segmentation: PanopticSegmentation, annotations: Sequence[Mapping[str, Any]] | None
) -> Iterator[Region]:
    """Iterate the regions of an image that have pixels.

    Args:
        segmentation: segments with category ids of the dataset.
        annotations: COCO annotations with the whole masks of the things, or None: then they are segments.

    Yields:
        The stuff, then the things, in their order.
    """
    extents = segmentation.runs.extents()
    segments = [s for s in segmentation.segments if s.segment_id in extents]
    for s in sorted(segments, key=lambda s: s.isthing):
        if s.isthing and annotations is not None:
            continue
        left, top, width, height = extents[s.segment_id].bbox_xywh
        crop = segmentation.segment_ids[top : top + height, left : left + width] == s.segment_id
        yield Region(s.category_id, s.isthing, s.iscrowd, s.score, crop, (left, top))
    for annotation in annotations or ():
        rle = segmentation_to_rle(annotation["segmentation"], segmentation.segment_ids.shape)
        left, top, width, height = (int(number) for number in coco_mask.toBbox(rle).tolist())
        crop = coco_mask.decode(rle)[top : top + height, left : left + width].astype(np.bool_)
        if crop.any():
            iscrowd = bool(annotation.get("iscrowd", 0))
            yield Region(annotation["category_id"], True, iscrowd, annotation.get(SCORE), crop, (left, top))
