"""Regions by their outlines: Canny's edges, and what closed lines enclose."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import connected_components, relabel
from segkit.classical.thresholding import otsu_threshold


def canny_edges(gray: NDArray[np.uint8], low: float | None = None, high: float | None = None) -> NDArray[np.bool_]:
    """(H, W) bool of Canny's one-pixel edges (Canny 1986), with Otsu's threshold of the gradient where none is given.

    gray: (H, W) uint8; smooth it beforehand where it is noisy. low, high: hysteresis thresholds of the 3 x 3 Sobel
    gradient's length (a step of s has a length of 4 s); by default `high` lies between the weak and the strong
    gradients, and `low` is half of `high`. A constant or empty image has no edge. Raises ValueError for another shape
    or dtype.
    """
    if gray.ndim != 2 or gray.dtype != np.uint8:
        raise ValueError(f"gray must be (H, W) uint8, got {gray.shape} {gray.dtype}")
    if not gray.size:
        return np.zeros(gray.shape, dtype=np.bool_)
    if high is None:
        high = _strong_gradient(gray)
    edges = cv2.Canny(gray, high / 2 if low is None else low, high, L2gradient=True)
    return np.asarray(edges > 0)


def enclosed_regions(edges: NDArray[np.bool_], min_area_px: int = 1) -> NDArray[np.int32]:
    """What lines close off from the image's border, each enclosed face a region with the line around it.

    edges: (H, W) bool; lines joined at corners are closed. A line between two regions belongs to the one that is
    first in row order. Faces that reach the image's border are background, so an object cut by it is lost.
    min_area_px counts the face without its line. Returns an (H, W) int32 label map as `relabel` numbers it.
    Raises ValueError where edges is not (H, W) bool.
    """
    if edges.ndim != 2 or edges.dtype != np.bool_:
        raise ValueError(f"edges must be (H, W) bool, got {edges.shape} {edges.dtype}")
    if not edges.size:
        return np.zeros(edges.shape, dtype=np.int32)
    faces = connected_components(~edges, connectivity=4)
    at_border = np.concatenate([faces[0], faces[-1], faces[:, 0], faces[:, -1]])
    faces[np.isin(faces, at_border)] = 0
    faces = relabel(faces, min_area_px)
    no_face = int(faces.max()) + 1
    nearby = cv2.erode(np.where(faces == 0, no_face, faces).astype(np.float64), np.ones((3, 3), dtype=np.uint8))
    on_line = edges & (nearby < no_face)
    faces[on_line] = nearby[on_line].astype(np.int32)
    return relabel(faces)


def edge_regions(
    gray: NDArray[np.uint8],
    low: float | None = None,
    high: float | None = None,
    *,
    gap_px: int = 2,
    min_area_px: int = 1,
) -> NDArray[np.int32]:
    """`enclosed_regions` of `canny_edges`, with gaps of at least up to gap_px pixels in the lines closed first.

    Arguments as theirs. Raises ValueError for a negative gap_px too.
    """
    if gap_px < 0:
        raise ValueError(f"gap_px must be at least 0, got {gap_px}")
    edges = canny_edges(gray, low, high)
    if edges.size and gap_px:
        side = gap_px + 1 + gap_px % 2  # odd: cv2 shifts what it closes with an even kernel
        kernel = np.ones((side, side), dtype=np.uint8)
        edges = cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    return enclosed_regions(edges, min_area_px)


def _strong_gradient(gray: NDArray[np.uint8]) -> float:
    """Half-way between the means of the weak and the strong gradients that Otsu's threshold parts."""
    along_x, along_y = (cv2.Sobel(gray, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
    length = np.hypot(along_x, along_y)
    steps = np.rint(length * (255 / max(float(length.max()), 1.0))).astype(np.uint8)
    strong = steps > otsu_threshold(steps)
    if not strong.any():
        return float(length.max())
    return float(length[strong].mean() + length[~strong].mean()) / 2
