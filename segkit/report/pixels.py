"""What the room takes for a picture, and a picture as text that stands in a page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

LOSSLESS_AT_MOST_PX = 256 * 256  # a JPEG blurs small pictures, whose pixels are looked at one by one
JPEG_QUALITY = 90


def check_rgb(picture: NDArray[np.uint8], argument: str) -> None:
    """ValueError naming the argument where it is not (H, W, 3) uint8."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"{argument} must be (H, W, 3) uint8 RGB, got {picture.shape} {picture.dtype}")


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a matplotlib figure drawn, without pyplot and its state."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    picture: NDArray[np.uint8] = np.asarray(rgba, dtype=np.uint8)[..., :3].copy()
    return picture


def data_uri(picture: NDArray[np.uint8]) -> str:
    """An (H, W, 3) uint8 RGB picture as a data URI: PNG up to 256 x 256 pixels, JPEG above. ValueError where empty."""
    check_rgb(picture, "picture")
    if not picture.size:
        raise ValueError(f"picture must not be empty, got {picture.shape}")
    small = picture.shape[0] * picture.shape[1] <= LOSSLESS_AT_MOST_PX
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    _, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(picture[..., ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
