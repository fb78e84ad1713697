"""Masks <-> COCO run-length encoding (RLE), by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


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


def rle_to_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        rle: Compressed COCO RLE.

    Returns:
        (H, W) bool.
    """
    mask: NDArray[np.uint8] = coco_mask.decode(dict(rle))
    return mask.astype(np.bool_)
