"""Text in pictures: one font at any size, and the roomiest place for a label inside a mask."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

DEJAVU_SANS = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # lies in matplotlib: Latin, Greek and Cyrillic, not only ASCII
ELLIPSIS = "…"


def render_text(text: str, size_px: int) -> NDArray[np.uint8]:
    """One line of text as its (h, w) coverage, uint8, 255 = ink.

    Every text of a size has the same h and baseline; all white space becomes single blanks; w is 0 for empty text.
    """
    font, line = _font(size_px), " ".join(text.split())
    _, top, _, bottom = font.getbbox("Ág")
    left, _, right, _ = font.getbbox(line)
    width, height = int(np.ceil(right - left)), int(np.ceil(bottom - top))
    if width <= 0:
        return np.zeros((height, 0), dtype=np.uint8)
    picture = Image.new("L", (width, height))
    ImageDraw.Draw(picture).text((-left, -top), line, fill=255, font=font)
    return np.asarray(picture)


def shorten(text: str, size_px: int, width_px: int) -> str:
    """The text, or as much of its two ends as fits into width_px with an ellipsis between; "" where nothing fits.

    Names of images differ at their ends.
    """

    def cut(length: int) -> str:
        begin = (length + 1) // 2
        return text[:begin].rstrip() + ELLIPSIS + text[len(text) - length + begin :].lstrip()

    if render_text(text, size_px).shape[1] <= width_px:
        return text
    kept = bisect_right(range(1, len(text)), width_px, key=lambda length: render_text(cut(length), size_px).shape[1])
    return cut(kept) if kept else ""


def draw_ink(
    canvas: NDArray[np.uint8], ink: NDArray[np.uint8], left: int, top: int, color: tuple[int, int, int]
) -> None:
    """Blend `render_text`'s coverage in an RGB colour into the (H, W, 3) canvas, in place; it must lie inside."""
    region = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    weight = ink[..., None].astype(np.float32) / 255
    region[:] = np.rint(region * (1 - weight) + np.array(color, dtype=np.float32) * weight).astype(np.uint8)


def roomiest_box(mask: NDArray[np.bool_], aspect: float) -> tuple[int, int, int, int]:
    """The largest box of width / height = max(aspect, 1) inside an (h, w) mask: (left, top, width, height), pixels.

    Squeezing the mask horizontally by the aspect makes boxes squares, and squares are the balls of the chessboard
    distance. Of several largest ones the most central is taken, ties in row order. All zero where none fits.
    """
    height, width = mask.shape
    squeezed_width = int(width / max(aspect, 1.0))
    if not height or not squeezed_width:
        return 0, 0, 0, 0
    share = cv2.resize(mask.astype(np.float32), (squeezed_width, height), interpolation=cv2.INTER_AREA)
    whole = np.pad((share > 0.9999).astype(np.uint8), 1)
    radius = cv2.distanceTransform(whole, cv2.DIST_C, 3)[1:-1, 1:-1]
    largest = int(radius.max())
    if not largest:
        return 0, 0, 0, 0
    ys, xs = np.nonzero(radius == largest)
    scale = width / squeezed_width
    nearest = np.argmin((ys - ys.mean()) ** 2 + ((xs - xs.mean()) * scale) ** 2)
    y, x = int(ys[nearest]), int(xs[nearest])
    left, right = int(np.ceil((x - largest + 1) * scale)), int((x + largest) * scale)
    return left, y - largest + 1, right - left, 2 * largest - 1


@lru_cache(maxsize=128)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / DEJAVU_SANS).is_file():
            return ImageFont.truetype(str(Path(folder) / DEJAVU_SANS), size_px)
    return ImageFont.load_default(size_px)
