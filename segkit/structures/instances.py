"""InstanceMasks: the instances of one image as box crops, so that algorithms visit only the pixels of the boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures.rle import crop_to_rle


@dataclass(frozen=True)
class InstanceMasks:
    """N instances of one image; N may be 0.

    Attributes:
        size_hw: (height, width) of the image, pixels.
        boxes_xyxy: (N, 4) float32, (left, top, right, bottom), pixels.
        scores: (N,) float32 in [0, 1].
        class_ids: (N,) int64, contiguous ids in a network's output.
        corners_xy: (N, 2) int64, (left, top) of each crop in the image, pixels.
        crops: N bool arrays (h, w), inside the image.
        mask_probs: (N, m, m') float32 in [0, 1], the mask head's outputs that the crops were pasted from, each spread
            over its box; None if unknown.

    Raises:
        ValueError: The lengths differ, a crop is not (h, w) bool or leaves the image, or a score or probability is NaN.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    corners_xy: NDArray[np.int64]
    crops: tuple[NDArray[np.bool_], ...]
    mask_probs: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.boxes_xyxy), len(self.scores), len(self.class_ids), len(self.corners_xy), len(self.crops)}
        if self.mask_probs is not None:
            lengths.add(len(self.mask_probs))
        if len(lengths) != 1:
            names = "boxes, scores, class_ids, corners, crops and mask_probs"
            raise ValueError(f"{names} must have the same length, got {sorted(lengths)}")
        if has_nan(self.scores) or has_nan(self.mask_probs):
            raise ValueError("scores and mask_probs must be numbers, got NaN: did the training diverge?")
        height, width = self.size_hw
        for (left, top), crop in zip(self.corners_xy.tolist(), self.crops, strict=True):
            if crop.ndim != 2 or crop.dtype != np.bool_:
                raise ValueError(f"crops must be (h, w) bool, got {crop.shape} {crop.dtype}")
            if left < 0 or top < 0 or top + crop.shape[0] > height or left + crop.shape[1] > width:
                raise ValueError(f"crop {crop.shape} at (x={left}, y={top}) leaves the {height} x {width} image")

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def from_full(
        cls,
        masks: NDArray[np.bool_],
        boxes_xyxy: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int64],
    ) -> InstanceMasks:
        """Build instances from whole masks; each crop is the tight box of its mask.

        Args:
            masks: (N, H, W) bool; the crop of an empty mask is 0 x 0 at (0, 0).
            boxes_xyxy: (N, 4) float32, pixels.
            scores: (N,) float32 in [0, 1].
            class_ids: (N,) int64.

        Returns:
            The instances.
        """
        size_hw = (int(masks.shape[1]), int(masks.shape[2]))
        boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks]
        corners = np.array(boxes, dtype=np.int64).reshape(-1, 4)[:, :2]
        crops = tuple(mask[y : y + h, x : x + w] for mask, (x, y, w, h) in zip(masks, boxes, strict=True))
        return cls(size_hw, boxes_xyxy, scores, class_ids, corners, crops)

    def window(self, index: int) -> tuple[slice, slice]:
        """Get the part of the image that a crop covers.

        Args:
            index: Row of the instance.

        Returns:
            (rows, columns).
        """
        left, top = self.corners_xy[index].tolist()
        height, width = self.crops[index].shape
        return slice(top, top + height), slice(left, left + width)

    def to_full(self) -> NDArray[np.bool_]:
        """Expand the crops to whole masks.

        Returns:
            (N, H, W) bool.
        """
        full = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for index, crop in enumerate(self.crops):
            full[index][self.window(index)] = crop
        return full

    def to_rle(self) -> list[dict[str, Any]]:
        """Encode the masks.

        Returns:
            Compressed COCO RLE `{"size": [H, W], "counts": str}` of each mask.
        """
        return [crop_to_rle(c, xy, self.size_hw) for c, xy in zip(self.crops, self.corners_xy.tolist(), strict=True)]


def has_nan(values: NDArray[np.float32] | None) -> bool:
    """Whether a value is NaN: only then the minimum is NaN."""
    return values is not None and bool(np.isnan(np.min(values, initial=0)))
