"""One map of classes from those of overlapping tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.runtime.tiling.grid import Tile, TileGrid


class SemanticMerger:
    """The classes of an image: those of a pixel are what the tile says that owns the pixel.

    Args:
        grid: The tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._size_hw = grid.size_hw
        self._map: NDArray[np.integer[Any]] | None = None

    def add(self, tile: Tile, result: NDArray[np.integer[Any]]) -> None:
        """Add the result of a tile.

        Args:
            tile: A tile of the grid.
            result: (h, w) integers, the classes of what the tile sees.
        """
        if self._map is None:
            self._map = np.zeros(self._size_hw, dtype=result.dtype)
        self._map = self._map.astype(np.promote_types(self._map.dtype, result.dtype), copy=False)
        self._map[tile.owned.window()] = result[tile.owned.window(*tile.seen[:2])]

    def finish(self) -> NDArray[np.integer[Any]]:
        """Get the map.

        Returns:
            (H, W) integers of a dtype that holds those of all tiles.
        """
        return np.zeros(self._size_hw, dtype=np.uint8) if self._map is None else self._map
