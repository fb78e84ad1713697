"""The instances of one image from those of overlapping tiles: an object on a seam is one instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.runtime.object_groups import ObjectGroups
from segkit.runtime.tiling.grid import Rectangle, Tile, TileGrid
from segkit.structures import InstanceMasks
from segkit.structures.packed_crops import PackedCrop, PackedCrops


@dataclass(frozen=True)
class _Piece:
    """An instance of a tile, in pixels of the image."""

    tile: Tile
    class_id: int
    score: float
    box_xyxy: NDArray[np.float32]
    place: Rectangle  # of the crop
    crop: PackedCrop
    is_cut: bool

    def view(self, part: Rectangle) -> NDArray[np.bool_]:
        """The mask within a part of `place`."""
        return self.crop.unpack(*part.window(*self.place[:2]))


class InstanceMerger:
    """The instances of an image, to which tiles are added in their order.

    An instance is complete in a tile if its mask touches no edge beyond which the image goes on; otherwise it is cut.
    Instances of two tiles are one if they are of one class and the IoU of their masks, within what both tiles see, is
    at least `MATCH_IOU`. Of the complete ones, the one with the highest score is kept; if all are cut, each tile gives
    the pixels that it owns. Instances without pixels are left out.

    Args:
        grid: The tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._groups = ObjectGroups()
        self._pieces: list[_Piece] = []
        self._open: list[int] = []  # rows of the pieces that later tiles may see

    def add(self, tile: Tile, result: InstanceMasks) -> None:
        """Add the result of a tile.

        Args:
            tile: The next tile of the grid.
            result: Of what the tile sees.
        """
        self._open = [row for row in self._open if self._pieces[row].tile.seen.bottom > tile.seen.top]
        pieces = [*self._cut_pieces(tile, result)]
        rows = [self._groups.add(tile.number) for _ in pieces]
        earlier = self._open
        self._pieces += pieces
        self._groups.unite(self._compute_ious(earlier, rows))
        self._open = earlier + rows

    def finish(self) -> InstanceMasks:
        """Merge the instances; the merger must not be used any more.

        Returns:
            The instances by falling score (the highest of all tiles), of equal scores that of the earlier tile first,
            without mask_probs; crops are `PackedCrops`.
        """
        members: dict[int, list[_Piece]] = {}
        for row, piece in enumerate(self._pieces):
            members.setdefault(self._groups.find(row), []).append(piece)
        self._pieces = []
        candidates = (_merge(members.pop(root)) for root in [*members])
        merged = [piece for piece in candidates if piece is not None]
        merged.sort(key=lambda piece: -piece.score)
        return InstanceMasks(
            size_hw=self._grid.size_hw,
            boxes_xyxy=np.array([piece.box_xyxy for piece in merged], dtype=np.float32).reshape(-1, 4),
            scores=np.array([piece.score for piece in merged], dtype=np.float32),
            class_ids=np.array([piece.class_id for piece in merged], dtype=np.int64),
            corners_xy=np.array([piece.place[1::-1] for piece in merged], dtype=np.int64).reshape(-1, 2),
            crops=PackedCrops([piece.crop for piece in merged]),
        )

    def _cut_pieces(self, tile: Tile, result: InstanceMasks) -> Iterator[_Piece]:
        """The instances of a tile that have pixels, in pixels of the image, each with the tight crop of its mask."""
        top, left = tile.seen[:2]
        offset = np.array([left, top, left, top], dtype=np.float32)
        for row, crop in enumerate(result.crops):
            ys, xs = (np.flatnonzero(crop.any(axis=axis)) for axis in (1, 0))
            if not len(ys):
                continue
            x, y = result.corners_xy[row].tolist()
            begin, end = (y + top + int(ys[0]), x + left + int(xs[0])), (y + top + int(ys[-1]), x + left + int(xs[-1]))
            place = Rectangle(*begin, end[0] + 1, end[1] + 1)
            touched = [mine == edge for mine, edge in zip(place, tile.seen, strict=True)]
            is_cut = any(a and b for a, b in zip(touched, self._grid.get_inner_edges(tile), strict=True))
            tight = PackedCrop.pack(crop[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1])
            box = result.boxes_xyxy[row] + offset
            yield _Piece(tile, int(result.class_ids[row]), float(result.scores[row]), box, place, tight, is_cut)

    def _compute_ious(self, earlier: Sequence[int], rows: Sequence[int]) -> Iterator[tuple[float, int, int]]:
        """(IoU, row, row) of the pairs of one class whose boxes intersect."""
        if not earlier or not rows:
            return
        (a_places, a_classes), (b_places, b_classes) = (self._stack(numbers) for numbers in (earlier, rows))
        begins = np.maximum(a_places[:, None, :2], b_places[None, :, :2])
        ends = np.minimum(a_places[:, None, 2:], b_places[None, :, 2:])
        is_near = (begins < ends).all(axis=2) & (a_classes[:, None] == b_classes)
        for a, b in np.argwhere(is_near).tolist():
            first, second = self._pieces[earlier[a]], self._pieces[rows[b]]
            both = first.tile.seen.intersect(second.tile.seen)
            shared = first.place.intersect(second.place)
            shared_px = np.count_nonzero(first.view(shared) & second.view(shared))
            parts = (piece.view(piece.place.intersect(both)) for piece in (first, second))
            union_px = sum(np.count_nonzero(part) for part in parts) - shared_px
            yield shared_px / max(union_px, 1), earlier[a], rows[b]

    def _stack(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n, 4) places and (n,) class_ids."""
        pieces = [self._pieces[row] for row in rows]
        return np.array([piece.place for piece in pieces]), np.array([piece.class_id for piece in pieces])


def _merge(pieces: Sequence[_Piece]) -> _Piece | None:
    """The instance that a group makes; None without pixels."""
    score = max(piece.score for piece in pieces)
    complete = [piece for piece in pieces if not piece.is_cut]
    if complete:
        best = max(complete, key=lambda piece: piece.score)
        return _Piece(best.tile, best.class_id, score, best.box_xyxy, best.place, best.crop, is_cut=False)
    parts = [(piece, part) for piece in pieces if not (part := piece.place.intersect(piece.tile.owned)).is_empty]
    if not any(piece.view(part).any() for piece, part in parts):
        return None
    tops, lefts, bottoms, rights = zip(*(part for _, part in parts), strict=True)
    place = Rectangle(min(tops), min(lefts), max(bottoms), max(rights))
    crop = np.zeros((place.bottom - place.top, place.right - place.left), dtype=np.bool_)
    for piece, part in parts:
        crop[part.window(*place[:2])] = piece.view(part)
    boxes = np.array([piece.box_xyxy for piece in pieces])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return _Piece(pieces[0].tile, pieces[0].class_id, score, box, place, PackedCrop.pack(crop), is_cut=True)
