"""InstanceMasks: the instances of one image as box crops, so that work touches only the pixels of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures.rle import crop_to_rle


@dataclass(frozen=True)
class InstanceMasks:
    """N instances of one image of `size_hw` pixels.

    boxes_xyxy: (N, 4) float32, pixels. scores: (N,) float32 in [0, 1]. class_ids: (N,) int64, the maker states
    the space. crops: N bool arrays (h, w); crop i lies at corners_xy[i] = (left, top), (N, 2) int64, inside the image.
    mask_probs: the mask head's outputs of which the crops were made, (N, m, m') float32 in [0, 1], each spread over its
    box; None where they are not known.
    Raises ValueError where the lengths differ, a crop is no (h, w) bool or leaves the image, or a score or probability
    is NaN. N may be 0.
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
            what = "boxes, scores, class_ids, corners, crops and mask_probs"
            raise ValueError(f"{what} must have one length, got {sorted(lengths)}")
        if np.isnan(self.scores).any() or _has_nan(self.mask_probs):
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
        """From (N, H, W) bool masks; each crop is the mask's tight box, 0 x 0 at (0, 0) where it is empty."""
        cut = [_tight_crop(mask) for mask in masks]
        corners = np.array([corner for corner, _ in cut], dtype=np.int64).reshape(-1, 2)
        size_hw = (int(masks.shape[1]), int(masks.shape[2]))
        return cls(size_hw, boxes_xyxy, scores, class_ids, corners, tuple(crop for _, crop in cut))

    def window(self, index: int) -> tuple[slice, slice]:
        """The rows and columns of the image that crop `index` covers."""
        left, top = self.corners_xy[index].tolist()
        height, width = self.crops[index].shape
        return slice(top, top + height), slice(left, left + width)

    def to_full(self) -> NDArray[np.bool_]:
        """(N, H, W) bool masks."""
        full = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for index, crop in enumerate(self.crops):
            full[index][self.window(index)] = crop
        return full

    def to_rle(self) -> list[dict[str, Any]]:
        """COCO's compressed run lengths, `{"size": [H, W], "counts": str}` each."""
        return [crop_to_rle(c, xy, self.size_hw) for c, xy in zip(self.crops, self.corners_xy.tolist(), strict=True)]


def _has_nan(values: NDArray[np.float32] | None) -> bool:
    return values is not None and bool(np.isnan(np.min(values, initial=0)))  # NaN is the least of all


def _tight_crop(mask: NDArray[np.bool_]) -> tuple[Sequence[int], NDArray[np.bool_]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0), np.zeros((0, 0), dtype=np.bool_)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return (int(left), int(top)), mask[top:bottom, left:right]
