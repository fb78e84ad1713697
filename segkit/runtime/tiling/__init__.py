"""Large images: cut into overlapping tiles, whose results are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.runtime.object_groups import MATCH_IOU
from segkit.runtime.tiling.grid import DEFAULT_OVERLAP_PX, Rectangle, Tile, TileGrid
from segkit.runtime.tiling.instances import InstanceMerger
from segkit.runtime.tiling.panoptic import PanopticMerger
from segkit.runtime.tiling.semantic import SemanticMerger
from segkit.structures import InstanceMasks, PanopticSegmentation
from segkit.utils import memory

__all__ = [
    "DEFAULT_OVERLAP_PX",
    "MATCH_IOU",
    "InstanceMerger",
    "PanopticMerger",
    "Rectangle",
    "SemanticMerger",
    "Tile",
    "TileGrid",
    "predict_tiles",
]


def predict_tiles(
    image: NDArray[Any],
    predict: Callable[[NDArray[Any]], Mapping[str, Any]],
    tile_px: int,
    overlap_px: int = DEFAULT_OVERLAP_PX,
) -> dict[str, Any]:
    """Predict an image tile by tile.

    If every object fits into the overlap, and the model says the same about an object wherever it sees all of it, then
    the result is that of the whole image. Objects larger than a tile become one as well, if the overlap is not 0.

    Args:
        image: (H, W, ...) pixels.
        predict: Crop (h, w, ...), a view of the image -> results by name. Panoptic segmentations, instances and maps of
            classes (h, w) are merged by `PanopticMerger`, `InstanceMerger` and `SemanticMerger`.
        tile_px: Side of the tiles.
        overlap_px: Least number of pixels that neighbours share: at least the largest side of most objects.

    Returns:
        The results of the image by name. Those of an image of one tile are what `predict` gives.

    Raises:
        ConfigError: The overlap is more than half a tile.
        ValueError: A result is none of the three kinds, or has another size than the tile.
    """
    grid = TileGrid((image.shape[0], image.shape[1]), tile_px, overlap_px)
    if len(grid.tiles) == 1:
        return dict(predict(image))
    mergers: dict[str, Any] = {}
    for tile in grid.tiles:
        if not tile.seen.left:  # of 20,000 x 20,000 pixels it saves 0.8 of 5.0 GB
            memory.release_free_memory()
        for name, result in predict(image[tile.seen.window()]).items():
            if name not in mergers:
                mergers[name] = _choose_merger(name, result)(grid)
            if (size_hw := _get_size(result)) != tile.seen.size_hw:
                raise ValueError(f"{name} must have the size of its tile, {tile.seen.size_hw}, got {size_hw}")
            mergers[name].add(tile, result)
    return {name: merger.finish() for name, merger in mergers.items()}


def _choose_merger(name: str, result: Any) -> Callable[[TileGrid], Any]:
    if isinstance(result, PanopticSegmentation):
        return PanopticMerger
    if isinstance(result, InstanceMasks):
        return InstanceMerger
    if isinstance(result, np.ndarray) and result.ndim == len("HW") and result.dtype.kind in "iu":
        return SemanticMerger
    raise ValueError(f"expected a panoptic segmentation, instances or a map of classes as {name}, got {type(result)}")


def _get_size(result: Any) -> tuple[int, int]:
    if isinstance(result, InstanceMasks):
        return result.size_hw
    height, width = getattr(result, "segment_ids", result).shape
    return height, width
