"""Regions by their outlines: the faces that Canny's edges enclose."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.brightness import LEVELS, find_bright, to_gray
from segkit.classical.components import remove_small
from segkit.classical.method import ClassicalMethod
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_numbers


@dataclass(frozen=True)
class CannyContours(ClassicalMethod):
    """The faces that Canny's edges (Canny 1986) separate from the border of the image, after gaps are closed.

    Each face is a region together with its line; a line between two belongs to the first in row order. Faces at the
    border of the image are background: an object that the border cuts is lost.

    Attributes:
        strength: Factor of the upper hysteresis threshold of the gradient, which is the middle between the mean weak
            and the mean strong gradient, parted by Otsu's method. The lower threshold is half of it.
        gap_px: Gaps in the lines up to this many pixels are closed; some longer ones may be too.
    """

    grid = {"blur_px": (1.0, 2.0), "strength": (0.25, 0.5, 1.0), "gap_px": (0, 2, 4), "min_area_px": (20, 50)}
    strength: float = 1.0
    gap_px: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "gap_px", least=0)
        check_numbers(self, "strength", least=0)
        if self.strength == 0:
            raise ConfigError("strength must be above 0", where=type(self).__name__)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        gray = to_gray(rgb)
        high = self.strength * _find_strong_gradient(gray)
        edges = cv2.Canny(gray, high / 2, high, L2gradient=True)
        if self.gap_px:
            side = self.gap_px + 1 + self.gap_px % 2  # odd: an even kernel would shift the result
            edges = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((side, side), dtype=np.uint8))
        return fill_contours(np.asarray(edges > 0))


def fill_contours(lines: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Find the faces that lines separate from the border of the image.

    Args:
        lines: (H, W) bool; lines that touch at corners are closed.

    Returns:
        (H, W) int32 label map of the faces with their lines, 0 elsewhere.
    """
    _, faces = cv2.connectedComponents((~lines).astype(np.uint8), None, 4, cv2.CV_32S)
    outside = np.unique(np.concatenate([faces[0], faces[-1], faces[:, 0], faces[:, -1]]))
    faces = np.where(np.isin(faces, outside), 0, faces)
    no_face = int(faces.max()) + 1
    # The lowest label of the 8 neighbours; erode knows no int32.
    nearby = cv2.erode(np.where(faces == 0, no_face, faces).astype(np.float64), np.ones((3, 3), dtype=np.uint8))
    return remove_small(np.where(lines & (nearby < no_face), nearby, faces).astype(np.int32), 1)


def _find_strong_gradient(gray: NDArray[np.uint8]) -> float:
    """The middle between the mean weak and the mean strong length of the 3 x 3 Sobel gradient; 1 if there is none."""
    along_x, along_y = (cv2.Sobel(gray, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
    length = np.hypot(along_x, along_y)
    longest = max(float(length.max()), 1.0)
    strong = find_bright(np.rint(length * ((LEVELS - 1) / longest)).astype(np.uint8))
    return float(length[strong].mean() + length[~strong].mean()) / 2 if strong.any() else longest
