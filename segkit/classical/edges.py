"""Regions by their outlines: Canny's edges, and the faces that closed lines enclose."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.clustering import otsu_threshold
from segkit.classical.regions import check_image, connected_components, relabel


def canny_edges(gray: NDArray[np.uint8], low: float | None = None, high: float | None = None) -> NDArray[np.bool_]:
    """Detect edges of one pixel width (Canny 1986).

    Args:
        gray: (H, W) uint8; smooth a noisy image first.
        low: Lower hysteresis threshold of the length of the 3 x 3 Sobel gradient (a step of s has the length 4 s);
            None for half of `high`.
        high: Upper hysteresis threshold; None for the middle between the weak and the strong gradients, which Otsu's
            method separates.

    Returns:
        (H, W) bool; no edge in a constant or empty image.

    Raises:
        ValueError: Another shape or dtype.
    """
    check_image(gray, np.uint8, "gray")
    if not gray.size:
        return np.zeros(gray.shape, dtype=np.bool_)
    if high is None:
        high = _strong_gradient(gray)
    edges = cv2.Canny(gray, high / 2 if low is None else low, high, L2gradient=True)
    return np.asarray(edges > 0)


def enclosed_regions(edges: NDArray[np.bool_], min_area_px: int = 1) -> NDArray[np.int32]:
    """Find the faces that lines separate from the border of the image; each is a region together with its line.

    A line between two regions belongs to the first one in row order. Faces at the border of the image are background:
    an object that the border cuts is lost.

    Args:
        edges: (H, W) bool; lines that touch at corners are closed.
        min_area_px: Pixels of a face without its line; smaller faces become background.

    Returns:
        (H, W) int32 label map as `relabel` numbers it.

    Raises:
        ValueError: `edges` is not (H, W) bool.
    """
    check_image(edges, np.bool_, "edges")
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
    """Find the faces between Canny's edges: `enclosed_regions` of `canny_edges`, after gaps in the lines are closed.

    Args:
        gray: (H, W) uint8.
        low: As for `canny_edges`.
        high: As for `canny_edges`.
        gap_px: Gaps up to this many pixels are closed; some longer ones may be too.
        min_area_px: As for `enclosed_regions`.

    Returns:
        (H, W) int32 label map as `relabel` numbers it.

    Raises:
        ValueError: Another shape or dtype, or a negative gap_px.
    """
    if gap_px < 0:
        raise ValueError(f"gap_px must be at least 0, got {gap_px}")
    edges = canny_edges(gray, low, high)
    if edges.size and gap_px:
        side = gap_px + 1 + gap_px % 2  # odd: an even kernel would shift the result
        kernel = np.ones((side, side), dtype=np.uint8)
        edges = cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    return enclosed_regions(edges, min_area_px)


def _strong_gradient(gray: NDArray[np.uint8]) -> float:
    """The middle between the mean weak and the mean strong gradient, which Otsu's threshold separates."""
    along_x, along_y = (cv2.Sobel(gray, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
    length = np.hypot(along_x, along_y)
    steps = np.rint(length * (255 / max(float(length.max()), 1.0))).astype(np.uint8)
    strong = steps > otsu_threshold(steps)
    if not strong.any():
        return float(length.max())
    return float(length[strong].mean() + length[~strong].mean()) / 2
