"""Polygons of masks: one closed outline for each object, as YOLO's label files have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit.formats.coco import drop_slivers
from segkit.formats.outlines import Points, join_pieces, trace_rings
from segkit.structures import rle_to_mask, segmentation_to_rle


def build_outline(segmentation: Any, size_hw: tuple[int, int]) -> Points | None:
    """One polygon with exactly the pixels of a COCO `segmentation`; None if it has no pixel.

    Polygons stay as they are if they give these pixels; otherwise the outline is along the edges of the pixels. Pieces
    and holes are joined by lines that are drawn there and back: they have no width.
    """
    rle = segmentation_to_rle(segmentation, size_hw)
    polygons = drop_slivers(segmentation) if isinstance(segmentation, list) else []
    if polygons:
        outline = join_pieces([np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons])
        if segmentation_to_rle([outline.ravel().tolist()], size_hw)["counts"] == rle["counts"]:
            return outline
    pieces = [ring for rings in trace_rings(rle_to_mask(rle)) for ring in rings]
    return join_pieces(pieces) if pieces else None
