"""The tiles of a large image: overlapping windows, of which each owns a part of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from segkit.utils.errors import ConfigError

DEFAULT_OVERLAP_PX = 128


class Rectangle(NamedTuple):
    """A part of the image.

    Attributes:
        top: First row.
        left: First column.
        bottom: Row after the last.
        right: Column after the last.
    """

    top: int
    left: int
    bottom: int
    right: int

    def intersect(self, other: Rectangle) -> Rectangle:
        """Intersect two rectangles.

        Args:
            other: The other rectangle.

        Returns:
            The pixels of both, perhaps none: then `is_empty`.
        """
        corner = max(self.top, other.top), max(self.left, other.left)
        return Rectangle(*corner, min(self.bottom, other.bottom), min(self.right, other.right))

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel."""
        return self.top >= self.bottom or self.left >= self.right

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.bottom - self.top, self.right - self.left

    def window(self, top: int = 0, left: int = 0) -> tuple[slice, slice]:
        """Index this part of an array.

        Args:
            top: Row of the image of the first row of the array.
            left: Column of the image of the first column of the array.

        Returns:
            (rows, columns).
        """
        return slice(self.top - top, self.bottom - top), slice(self.left - left, self.right - left)


class Tile(NamedTuple):
    """One tile.

    Attributes:
        number: Place in `TileGrid.tiles`.
        seen: The pixels that the model sees.
        owned: The pixels that this tile decides about. Every pixel is owned by one tile.
    """

    number: int
    seen: Rectangle
    owned: Rectangle


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one size, spread evenly, that cover an image; the seams are in the middle of the overlaps.

    Attributes:
        size_hw: (height, width) of the image, pixels.
        tile_px: Side of the tiles; a shorter side of the image is covered by one tile.
        overlap_px: Least number of rows and columns that neighbours share.

    Raises:
        ConfigError: A tile has no pixel, or the overlap is negative or more than half a tile.
    """

    size_hw: tuple[int, int]
    tile_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if self.tile_px < 1:
            raise ConfigError(f"expected tiles of at least 1 pixel, got {self.tile_px}", where="tile")
        if not 0 <= 2 * self.overlap_px <= self.tile_px:
            problem = f"expected 0 to {self.tile_px // 2} pixels, half a tile, got {self.overlap_px}"
            raise ConfigError(problem, where="overlap", remedy="choose larger tiles or a smaller overlap")

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles, row by row."""
        rows, columns = (self._split(side) for side in self.size_hw)
        parts = [
            [Rectangle(y[0], x[0], y[1], x[1]) for y, x in zip(row, column, strict=True)]
            for row in rows
            for column in columns
        ]
        return tuple(Tile(index, seen, owned) for index, (seen, owned) in enumerate(parts))

    def get_inner_edges(self, tile: Tile) -> tuple[bool, bool, bool, bool]:
        """Tell at which edges of a tile the image goes on.

        Args:
            tile: One of `tiles`.

        Returns:
            For the top, left, bottom and right edge.
        """
        height, width = self.size_hw
        return tile.seen.top > 0, tile.seen.left > 0, tile.seen.bottom < height, tile.seen.right < width

    def _split(self, side: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """The (begin, end) of each tile, and of what it owns, along one side of the image."""
        if side <= self.tile_px:
            return [((0, side), (0, side))]
        count = -(-(side - self.overlap_px) // (self.tile_px - self.overlap_px))
        begins = [index * (side - self.tile_px) // (count - 1) for index in range(count)]
        seams = [(begin + self.tile_px + following) // 2 for begin, following in pairwise(begins)]
        owned = pairwise([0, *seams, side])
        return [((begin, begin + self.tile_px), part) for begin, part in zip(begins, owned, strict=True)]
