"""Images of reports: checks, scaling, text, matplotlib figures, data URIs, and the largest box in a mask."""

from __future__ import annotations

import base64
from bisect import bisect_right
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segkit.utils.text import make_printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEJAVU_SANS = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # part of matplotlib; has Latin, Greek and Cyrillic letters
INK = (32, 36, 42)  # RGB of text on white
ELLIPSIS = "…"
MAX_LOSSLESS_PX = 256 * 256  # JPEG would blur small images, whose single pixels matter
JPEG_QUALITY = 90


def check_rgb(image: NDArray[np.uint8], argument: str) -> None:
    """Raise a ValueError that names the argument if the image is not (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{argument} must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")


def render_figure(figure: Figure) -> NDArray[np.uint8]:
    """Draw a matplotlib figure as (H, W, 3) uint8 RGB, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    image: NDArray[np.uint8] = np.asarray(rgba, dtype=np.uint8)[..., :3].copy()
    return image


def encode_data_uri(image: NDArray[np.uint8]) -> str:
    """Encode an (H, W, 3) uint8 RGB image: PNG up to 256 x 256 pixels, JPEG above. ValueError if it is empty."""
    check_rgb(image, "image")
    if not image.size:
        raise ValueError(f"image must not be empty, got {image.shape}")
    is_small = image.shape[0] * image.shape[1] <= MAX_LOSSLESS_PX
    kind, options = ("png", []) if is_small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    _, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def scale_image(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Scale an image so that it fits into a square.

    Args:
        image: (H, W, 3) uint8, not empty.
        side_px: Pixels of the square's side, at least 1.

    Returns:
        The image, enlarged by the largest whole factor, so that pixels stay sharp squares, or reduced by averaging.
    """
    height, width = image.shape[:2]
    scale = side_px // max(height, width) or side_px / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), dtype=np.uint8)


def render_text(text: str, size_px: int) -> NDArray[np.uint8]:
    """Draw one line of text as (h, w) uint8 coverage, 255 = ink.

    All texts of a size have the same h and baseline. White space becomes single blanks, and characters that cannot be
    shown are escaped. w is 0 for empty text.
    """
    font, line = _font(size_px), make_printable(" ".join(text.split()))
    _, top, _, bottom = font.getbbox("Ág")
    left, _, right, _ = font.getbbox(line)
    width, height = int(np.ceil(right - left)), int(np.ceil(bottom - top))
    if width <= 0:
        return np.zeros((height, 0), dtype=np.uint8)
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((-left, -top), line, fill=255, font=font)
    return np.asarray(image)


def shorten(text: str, size_px: int, width_px: int) -> str:
    """Cut letters out of the middle of a text until it fits into width_px; "" if nothing fits.

    The ends stay, since names of images differ there.
    """

    def cut(length: int) -> str:
        begin = (length + 1) // 2
        return text[:begin].rstrip() + ELLIPSIS + text[len(text) - length + begin :].lstrip()

    if render_text(text, size_px).shape[1] <= width_px:
        return text
    lengths = range(1, len(text))
    longest = bisect_right(lengths, width_px, key=lambda length: render_text(cut(length), size_px).shape[1])
    return cut(longest) if longest else ""


def draw_ink(
    canvas: NDArray[np.uint8], ink: NDArray[np.uint8], left: int, top: int, color: tuple[int, int, int]
) -> None:
    """Blend the coverage of `render_text` in an RGB colour into the (H, W, 3) canvas, in place; it must fit inside."""
    region = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    weight = ink[..., None].astype(np.float32) / 255
    region[:] = np.rint(region * (1 - weight) + np.array(color, dtype=np.float32) * weight).astype(np.uint8)


def find_largest_box(mask: NDArray[np.bool_], aspect: float) -> tuple[int, int, int, int]:
    """Find the largest box of width / height = max(aspect, 1) inside an (h, w) mask.

    The mask is squeezed horizontally by the aspect: this makes the boxes squares, and a square is a ball of the
    chessboard distance. Of several largest boxes the most central one is taken, ties in row order.

    Args:
        mask: (h, w) bool.
        aspect: Width / height of the box; below 1 it counts as 1.

    Returns:
        (left, top, width, height), pixels; all 0 if no box fits.
    """
    height, width = mask.shape
    squeezed_width = int(width / max(aspect, 1.0))
    if not height or not squeezed_width:
        return 0, 0, 0, 0
    share = cv2.resize(mask.astype(np.float32), (squeezed_width, height), interpolation=cv2.INTER_AREA)
    inside = np.pad((share > 0.9999).astype(np.uint8), 1)
    radius = cv2.distanceTransform(inside, cv2.DIST_C, 3)[1:-1, 1:-1]
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
