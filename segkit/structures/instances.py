"""Instances: of one image as box crops, of many images as columns; and masks as COCO run-length encoding (RLE)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.structures.rle import encode_crops


@dataclass(frozen=True)
class InstanceMasks:
    """N instances of one image as box crops, so that algorithms visit only the pixels of the boxes; N may be 0.

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
    crops: Sequence[NDArray[np.bool_]]
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
        # Copies: views would keep the whole masks in memory.
        crops = tuple(mask[y : y + h, x : x + w].copy() for mask, (x, y, w, h) in zip(masks, boxes, strict=True))
        return cls(size_hw, boxes_xyxy, scores, class_ids, corners, crops)

    def window(self, index: int) -> tuple[slice, slice]:
        """Get the part of the image that a crop covers.

        Args:
            index: Row of the instance.

        Returns:
            (rows, columns).
        """
        return self._windows[index]

    @cached_property
    def _windows(self) -> list[tuple[slice, slice]]:
        sides = [crop.shape for crop in self.crops]
        return [
            (slice(top, top + height), slice(left, left + width))
            for (left, top), (height, width) in zip(self.corners_xy.tolist(), sides, strict=True)
        ]

    @cached_property
    def areas_px(self) -> NDArray[np.int64]:
        """(N,) int64: pixels of each mask."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], dtype=np.int64)

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
        return encode_crops(self.crops, self.corners_xy.tolist(), self.size_hw)


class InstanceColumns(NamedTuple):
    """Annotations or results of things, one row each, in the order of the file.

    Attributes:
        image: (N,) int64, index of the image.
        thing: (N,) int64, contiguous id of the category among the things.
        iscrowd: (N,) int64, 0 or 1.
        number: (N,) float64, area of an annotation in pixels, or score of a result.
        boxes: (N, 4) float64, [x, y, width, height] in pixels; (0, 4) if boxes are not compared.
        box_area: (N,) float64, pixels that decide the size class of a box; empty if boxes are not compared.
        masks: N compressed COCO RLEs, of annotations also polygons; empty if masks are not compared.
        area_px: (N,) int64, pixels of each mask, 0 for polygons; empty if masks are not compared.
    """

    image: NDArray[np.int64]
    thing: NDArray[np.int64]
    iscrowd: NDArray[np.int64]
    number: NDArray[np.float64]
    boxes: NDArray[np.float64]
    box_area: NDArray[np.float64]
    masks: list[Any]
    area_px: NDArray[np.int64]

    def select(self, rows: NDArray[np.integer]) -> InstanceColumns:
        """Select rows.

        Args:
            rows: (M,) integers, indices of rows.

        Returns:
            These rows, in this order.
        """
        selected = {name: column[rows] for name, column in self._arrays().items() if len(column)}
        return self._replace(masks=[self.masks[row] for row in rows.tolist()] if self.masks else [], **selected)

    @classmethod
    def concatenate(cls, parts: Sequence[InstanceColumns]) -> InstanceColumns:
        """Join the columns of single images.

        Args:
            parts: one or more columns, each of one image.

        Returns:
            The rows of all parts; `image` is the index of the part.
        """
        joined = {name: np.concatenate([part._arrays()[name] for part in parts]) for name in parts[0]._arrays()}
        joined["image"] = np.repeat(np.arange(len(parts)), [len(part.image) for part in parts])
        return cls(masks=[mask for part in parts for mask in part.masks], **joined)

    def _arrays(self) -> dict[str, Any]:
        return {name: column for name, column in self._asdict().items() if name != "masks"}


def crop_to_rle(crop: NDArray[np.bool_], corner_xy: Sequence[int], size_hw: tuple[int, int]) -> dict[str, Any]:
    """Encode a crop of a mask as the RLE of the whole mask.

    Args:
        crop: (h, w) bool.
        corner_xy: (left, top) of the crop in the image, pixels.
        size_hw: (height, width) of the image, pixels.

    Returns:
        Compressed COCO RLE `{"size": [H, W], "counts": str}`.
    """
    canvas = np.zeros(size_hw, dtype=np.uint8, order="F")
    left, top = corner_xy
    canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    rle: dict[str, Any] = coco_mask.encode(canvas)
    return {"size": [*size_hw], "counts": rle["counts"].decode("ascii")}


def mask_to_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Compressed COCO RLE `{"size": [H, W], "counts": str}`.
    """
    return crop_to_rle(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def segmentation_to_rle(segmentation: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Encode any COCO `segmentation` as compressed RLE.

    Args:
        segmentation: Polygons, or uncompressed or compressed RLE.
        size_hw: (height, width) of the image, pixels; for polygons and uncompressed RLE.

    Returns:
        Compressed COCO RLE `{"size": [H, W], "counts": str}`.

    Raises:
        ValueError: The segmentation is neither polygons nor RLE.
    """
    if isinstance(segmentation, list) and segmentation:
        rle: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
    elif isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), list):
        rle = coco_mask.frPyObjects(dict(segmentation), *size_hw)
    elif isinstance(segmentation, Mapping) and "counts" in segmentation:
        rle = dict(segmentation)
    else:
        raise ValueError(f"expected polygons or RLE, got {type(segmentation).__name__}")
    counts = rle["counts"]
    return {"size": [*rle["size"]], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def compute_areas_px(rles: Iterable[Mapping[str, Any]]) -> list[int]:
    """Count the pixels of masks.

    One by one: `area` of pycocotools overflows on a list of 256 and more masks under numpy 2.

    Args:
        rles: Compressed COCO RLEs.

    Returns:
        The pixels of each mask.
    """
    return [int(coco_mask.area(rle)) for rle in rles]


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        rle: Compressed COCO RLE.

    Returns:
        (H, W) bool.
    """
    mask: NDArray[np.uint8] = coco_mask.decode(dict(rle))
    return mask.astype(np.bool_)


def has_nan(values: NDArray[np.float32] | None) -> bool:
    """Whether a value is NaN: only then the minimum is NaN."""
    return values is not None and bool(np.isnan(np.min(values, initial=0)))
