"""Polygons of masks: one closed outline for each object, as YOLO's label files have them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats.coco import drop_slivers
from segkit.structures import rle_to_mask, segmentation_to_rle

Points: TypeAlias = NDArray[np.float64]  # (N, 2) x and y

MAX_COMPARED = 500  # corners of a piece among which the nearest to the next piece is looked for


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
    pieces = trace_edges(rle_to_mask(rle))
    return join_pieces(pieces) if pieces else None


def trace_edges(mask: NDArray[np.bool_]) -> list[Points]:
    """The outlines of the pieces (8 neighbours) and holes of a mask, along the edges of its pixels."""
    doubled = np.kron(mask, np.ones((2, 2), dtype=np.uint8)).astype(np.uint8)
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    pieces = []
    for contour in contours:
        # The pixels 2x and 2x + 1 of the doubled mask are beside the edges x and x + 1.
        points_xy = (contour[:, 0, :].astype(np.float64) + 1) // 2
        is_repeated = (points_xy == np.roll(points_xy, 1, axis=0)).all(axis=1)
        pieces.append(points_xy[~is_repeated])
    return pieces


def join_pieces(pieces: Sequence[Points]) -> Points:
    """One polygon through all pieces, with a line there and back from each to the next, between corners nearby."""
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


def _find_link(piece: Points, following: Points) -> tuple[int, int]:
    """The indices of two corners that are nearly the nearest ones."""
    steps = [-(-len(points) // MAX_COMPARED) for points in (piece, following)]
    differences = piece[:: steps[0], None] - following[None, :: steps[1]]
    row, column = np.unravel_index(np.square(differences).sum(axis=2).argmin(), differences.shape[:2])
    return int(row) * steps[0], int(column) * steps[1]
