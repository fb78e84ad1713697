"""Outlines of masks along the edges of their pixels, as polygons with holes; pieces joined to one closed line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]  # (N, 2) x and y
Rings: TypeAlias = list[Points]  # the outer one, then the holes

MAX_COMPARED = 500  # corners of a piece among which the nearest to the next piece is looked for


def trace_rings(mask: NDArray[np.bool_]) -> list[Rings]:
    """Trace a mask as polygons with holes, which have exactly its pixels.

    Points are corners of pixels: pixel (row, column) covers [column, column + 1] x [row, row + 1]. Rings do not cross
    or touch themselves, and touch each other in single points only, so that polygons are valid in the OGC's sense. The
    first point is not repeated. Outer rings have a positive area by the shoelace formula, holes a negative one.

    Args:
        mask: (H, W) bool.

    Returns:
        The rings of each piece (4 neighbours); none for an empty mask.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    pieces = []
    for label, (left, top, width, height, _) in zip(range(1, count), boxes[1:].tolist(), strict=True):
        piece = labels[top : top + height, left : left + width] == label
        rings = [ring + np.array([left, top]) for ring in _trace_piece(piece)]
        pieces.append(sorted(rings, key=compute_area, reverse=True))
    return pieces


def build_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Build COCO polygons with exactly the pixels of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        [x, y, x, y, ...] of each piece; holes are cut open by lines without width.
    """
    return [join_pieces(rings).ravel().tolist() for rings in trace_rings(mask)]


def compute_area(ring: Points) -> float:
    """Compute the area of a ring by the shoelace formula.

    Args:
        ring: (N, 2) x and y.

    Returns:
        The area, negative if the ring turns the other way.
    """
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def join_pieces(pieces: Sequence[Points]) -> Points:
    """Join rings to one closed line: there and back between corners nearby, so that the joints have no width.

    Args:
        pieces: one or more rings.

    Returns:
        (N, 2) x and y.
    """
    links = [_find_link(piece, following) for piece, following in pairwise(pieces)]
    entries = [0, *(entry for _, entry in links)]
    way_there, way_back = [], []
    for piece, entry, (leaving, _) in zip(pieces, entries, links, strict=False):
        tour = np.roll(piece, -entry, axis=0)
        index = (leaving - entry) % len(piece)
        way_there.append(tour[: index + 1])
        way_back.append(np.concatenate([tour[index:], tour[:1]]))
    last = np.roll(pieces[-1], -entries[-1], axis=0)
    if not links:
        return last
    return np.concatenate([*way_there, last, last[:1], *reversed(way_back)])


def _trace_piece(piece: NDArray[np.bool_]) -> Iterator[Points]:
    """The rings of one piece.

    Edges have the piece on their right-hand side: those above it lead right, those below it left. Where two of its
    pixels touch in a corner only, the line turns left, around the gap: so each gap has its ring.
    """
    a, b, c, d = _list_neighbours(piece)  # of each corner of pixels: above left, above right, below left, below right
    rows, columns = np.nonzero(((a != b) | (c != d)) & ((a != c) | (b != d)))
    a, b, c, d = (neighbour[rows, columns] for neighbour in (a, b, c, d))
    goes_right, goes_left, goes_down, goes_up = d & ~b, a & ~c, c & ~d, b & ~a
    count = len(rows)
    by_column = np.lexsort((rows, columns))
    place = np.empty(count, dtype=np.intp)
    place[by_column] = np.arange(count)
    # A state is 2 * corner + (1 if the line leaves it to the right, 0 to the left). It goes on to the next corner of
    # the row, there up or down to the next corner of the column, and leaves this one to the right or left.
    corners = np.repeat(np.arange(count), 2)
    right = np.tile([False, True], count)
    turns = np.clip(corners + np.where(right, 1, -1), 0, count - 1)
    down = np.where(goes_down[turns] & goes_up[turns], ~right, goes_down[turns])
    ends = by_column[np.clip(place[turns] + np.where(down, 1, -1), 0, count - 1)]
    leaves_right = np.where(goes_right[ends] & goes_left[ends], down, goes_right[ends])
    following = (2 * ends + leaves_right).tolist()
    is_open = np.stack([goes_left, goes_right], axis=1).ravel().tolist()
    middle = turns.tolist()
    points_xy = np.stack([columns, rows], axis=1).astype(np.float64)
    for state in range(2 * count):
        ring = []
        while is_open[state]:
            is_open[state] = False
            ring += [state // 2, middle[state]]
            state = following[state]
        if ring:
            yield points_xy[ring]


def _list_neighbours(piece: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """The pixels above left, above right, below left and below right of each of the (h + 1, w + 1) corners."""
    padded = np.pad(piece, 1)
    return padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]


def _find_link(piece: Points, following: Points) -> tuple[int, int]:
    """The indices of two corners that are nearly the nearest ones."""
    steps = [-(-len(points) // MAX_COMPARED) for points in (piece, following)]
    differences = piece[:: steps[0], None] - following[None, :: steps[1]]
    row, column = np.unravel_index(np.square(differences).sum(axis=2).argmin(), differences.shape[:2])
    return int(row) * steps[0], int(column) * steps[1]
