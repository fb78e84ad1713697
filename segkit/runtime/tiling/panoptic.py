"""One panoptic map from those of overlapping tiles: an object on a seam is one segment."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import count_pairs
from segkit.runtime.object_groups import ObjectGroups
from segkit.runtime.tiling.grid import Rectangle, Tile, TileGrid
from segkit.structures import MAX_SEGMENT_ID, VOID, PanopticSegmentation, Segment

# What a tile says about a pixel is overwritten by a tile that says something of a higher level.
STUFF, CUT, COMPLETE_ELSEWHERE, COMPLETE = 1, 2, 3, 4
BAND_PX = 2**20  # pixels that are relabelled at once


class _Strip(NamedTuple):
    """The part of a tile's map that later tiles see: where it is, and its numbers (h, w)."""

    place: Rectangle
    numbers: NDArray[np.int32]


class PanopticMerger:
    """The panoptic map of an image, to which tiles are added in their order.

    A thing is complete in a tile if it touches no edge beyond which the image goes on; otherwise it is cut. Things of
    two tiles are one object if they are of one class and their IoU, within what both tiles see, is at least
    `MATCH_IOU`. A pixel belongs to a complete thing of the tile that owns the pixel; otherwise to a complete thing of
    another tile, to a cut thing of the owner, to stuff of the owner; otherwise it is void.

    Memory: the map (int32), one byte for each pixel of a row of tiles, and the overlaps of two rows of tiles.

    Args:
        grid: The tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        height, width = grid.size_hw
        self._grid = grid
        self._map = np.zeros((height, width), dtype=np.int32)  # numbers of objects and of classes of stuff, 0 for void
        self._levels = np.zeros((min(grid.tile_px, height), width), dtype=np.uint8)  # of the rows from _top
        self._top = 0
        self._groups = ObjectGroups()
        self._groups.add(-1)  # number 0 is void
        self._segments: list[Segment | None] = [None]  # by number, as the tile gave them
        self._stuff: dict[int, int] = {}  # category_id -> number
        self._beside: list[_Strip] = []  # right parts of tiles of this row
        self._above: list[_Strip] = []  # lower parts of tiles of the rows above

    def add(self, tile: Tile, result: PanopticSegmentation) -> None:
        """Add the result of a tile.

        Args:
            tile: The next tile of the grid.
            result: Of what the tile sees, with things that have scores.
        """
        if tile.seen.top != self._top:
            self._start_row(tile.seen.top)
        numbers, levels = self._number(tile, result)
        self._match(tile.seen, numbers)
        self._keep_overlaps(tile, numbers)
        written = self._levels[: len(levels), tile.seen.left : tile.seen.right]
        is_higher = levels > written
        np.copyto(written, levels, where=is_higher)
        np.copyto(self._map[tile.seen.window()], numbers, where=is_higher)

    def finish(self) -> PanopticSegmentation:
        """Number the segments of the image; the merger must not be used any more.

        Returns:
            The segmentation: ids 1..N, first things by falling score (the highest of all tiles), then stuff by rising
            category_id; of each segment the pixels are counted in the image, and the row of an instance is not known.

        Raises:
            ValueError: There are more segments than ids in a PNG.
        """
        roots = np.array([self._groups.find(number) for number in range(len(self._groups))], dtype=np.int32)
        areas_px = self._relabel(roots)
        best: dict[int, Segment] = {}
        for root, segment in zip(roots.tolist(), self._segments, strict=True):
            if segment is not None and areas_px[root]:
                scores = [s.score for s in (segment, best.get(root)) if s is not None and s.score is not None]
                first = best.get(root, segment)
                best[root] = replace(first, score=max(scores, default=None), area_px=int(areas_px[root]))
        if len(best) > MAX_SEGMENT_ID:
            raise ValueError(f"expected at most {MAX_SEGMENT_ID} segments in an image, got {len(best)}")
        order = sorted(best, key=lambda root: _rank(best[root]))
        segment_ids = np.full(len(roots), VOID, dtype=np.int32)
        segment_ids[order] = np.arange(1, len(order) + 1)
        self._relabel(segment_ids)
        segments = (replace(best[root], segment_id=int(segment_ids[root]), instance_id=None) for root in order)
        return PanopticSegmentation(self._map, tuple(segments))

    def _start_row(self, top: int) -> None:
        """Shift the levels to the next row of tiles, and forget the overlaps above it."""
        shift = top - self._top
        below = np.zeros_like(self._levels[:shift])
        self._levels = np.concatenate([self._levels[shift:], below])
        self._top, self._beside = top, []
        self._above = [strip for strip in self._above if strip.place.bottom > top]

    def _number(self, tile: Tile, result: PanopticSegmentation) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The number and the level of each pixel (h, w) of a tile."""
        ids, seen = result.segment_ids, tile.seen
        edges = (ids[0], ids[:, 0], ids[-1], ids[:, -1])
        inner = [edge for edge, is_inner in zip(edges, self._grid.get_inner_edges(tile), strict=True) if is_inner]
        cut = {*np.unique(np.concatenate(inner)).tolist()} if inner else set()
        number_of = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.int32)
        owned_level, other_level = np.zeros((2, len(number_of)), dtype=np.uint8)
        for segment in result.segments:
            if (segment_id := segment.segment_id) < len(number_of):
                number_of[segment_id] = self._get_number(tile, segment)
                owned_level[segment_id] = (CUT if segment_id in cut else COMPLETE) if segment.isthing else STUFF
                other_level[segment_id] = COMPLETE_ELSEWHERE if owned_level[segment_id] == COMPLETE else 0
        levels = other_level[ids]
        owned = tile.owned.window(seen.top, seen.left)
        levels[owned] = owned_level[ids[owned]]
        return number_of[ids], levels

    def _get_number(self, tile: Tile, segment: Segment) -> int:
        """A number of its own for each thing, one for each class of stuff."""
        if not segment.isthing and segment.category_id in self._stuff:
            return self._stuff[segment.category_id]
        number = self._groups.add(tile.number)
        self._segments.append(segment)
        if not segment.isthing:
            self._stuff[segment.category_id] = number
        return number

    def _match(self, seen: Rectangle, numbers: NDArray[np.int32]) -> None:
        """Unite the things of a tile with those of the earlier tiles that it overlaps."""
        matches = []
        for strip in [*self._beside, *self._above]:
            both = seen.intersect(strip.place)
            if not both.is_empty:
                earlier = strip.numbers[both.window(*strip.place[:2])]
                matches += self._compute_ious(earlier, numbers[both.window(*seen[:2])])
        self._groups.unite(matches)

    def _compute_ious(self, earlier: NDArray[np.int32], numbers: NDArray[np.int32]) -> list[tuple[float, int, int]]:
        """(IoU, number, number) of the things of one class that share pixels of two maps (h, w)."""
        firsts, seconds, pixels = (values.tolist() for values in count_pairs(earlier, numbers))
        areas_px: dict[tuple[int, int], int] = {}
        for first, second, count in zip(firsts, seconds, pixels, strict=True):
            for key in ((0, first), (1, second)):
                areas_px[key] = areas_px.get(key, 0) + count
        ious = []
        for first, second, count in zip(firsts, seconds, pixels, strict=True):
            one, other = self._segments[first], self._segments[second]
            if one and other and one.isthing and other.isthing and one.category_id == other.category_id:
                ious.append((count / (areas_px[0, first] + areas_px[1, second] - count), first, second))
        return ious

    def _keep_overlaps(self, tile: Tile, numbers: NDArray[np.int32]) -> None:
        """Keep what the next tile of the row and the next row of tiles see."""
        seen, tiles = tile.seen, self._grid.tiles
        following = tiles[tile.number + 1].seen if tile.number + 1 < len(tiles) else None
        if following is not None and following.top == seen.top:
            self._keep(self._beside, seen._replace(left=following.left), seen, numbers)
        below = next((other.seen.top for other in tiles[tile.number :] if other.seen.top > seen.top), seen.bottom)
        self._keep(self._above, seen._replace(top=below), seen, numbers)

    def _keep(self, strips: list[_Strip], place: Rectangle, seen: Rectangle, numbers: NDArray[np.int32]) -> None:
        if not place.is_empty:
            strips.append(_Strip(place, numbers[place.window(*seen[:2])].copy()))

    def _relabel(self, new_labels: NDArray[np.int32]) -> NDArray[np.int64]:
        """Replace the labels of the map, some rows at once; the pixels of each label afterwards."""
        areas_px = np.zeros(len(new_labels), dtype=np.int64)
        rows = max(BAND_PX // max(self._map.shape[1], 1), 1)
        for top in range(0, len(self._map), rows):
            band = self._map[top : top + rows]
            band[:] = new_labels[band]
            areas_px += np.bincount(band.ravel(), minlength=len(new_labels))
        return areas_px


def _rank(segment: Segment) -> tuple[bool, float, int]:
    """Things first, by falling score, then stuff by class."""
    if segment.isthing:
        return False, -(segment.score or 0.0), 0
    return True, 0.0, segment.category_id
