"""Images of the reports: checked, drawn by matplotlib, and encoded as data URIs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
