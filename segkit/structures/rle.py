"""Masks <-> COCO run lengths, by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def crop_to_rle(crop: NDArray[np.bool_], corner_xy: Sequence[int], size_hw: tuple[int, int]) -> dict[str, Any]:
    """Compressed COCO RLE `{"size": [H, W], "counts": str}` of an (h, w) crop that lies at (left, top) in the image."""
    canvas = np.zeros(size_hw, dtype=np.uint8, order="F")
    left, top = corner_xy
    canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    rle: dict[str, Any] = coco_mask.encode(canvas)
    return {"size": [*size_hw], "counts": rle["counts"].decode("ascii")}


def mask_to_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Compressed COCO RLE of an (H, W) mask."""
    return crop_to_rle(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def segmentation_to_rle(segmentation: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Any COCO `segmentation` (polygons, uncompressed or compressed RLE) as compressed RLE.

    Raises ValueError where it is none of these.
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


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """(H, W) bool mask of a compressed RLE."""
    mask: NDArray[np.uint8] = coco_mask.decode(dict(rle))
    return mask.astype(np.bool_)
