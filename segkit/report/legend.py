"""Names of classes beside an image, each with its colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.report.palette import Color
from segkit.report.rendering import INK, draw_ink, render_text, shorten

TEXT_SHARE, MIN_TEXT_PX, MAX_TEXT_PX = 0.035, 11, 28  # of the height of the image
MAX_LEGEND_TEXTS = 20  # times the height of the text: the width of a name


def add_legend(image: NDArray[np.uint8], entries: Sequence[tuple[str, Color]]) -> NDArray[np.uint8]:
    """Write names of classes beside an image, on white to its right, each with its colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        entries: (name, RGB) of each.

    Returns:
        (max(H, legend), W + legend, 3) uint8 RGB; the image itself without entries.
    """
    if not entries:
        return image
    text_px = int(np.clip(round(TEXT_SHARE * image.shape[0]), MIN_TEXT_PX, MAX_TEXT_PX))
    inks = [render_text(shorten(name, text_px, MAX_LEGEND_TEXTS * text_px), text_px) for name, _ in entries]
    gap, row_px = text_px // 2, max(ink.shape[0] for ink in inks) + text_px // 3
    width = image.shape[1] + 3 * gap + text_px + max(ink.shape[1] for ink in inks)
    canvas = np.full((max(image.shape[0], 2 * gap + row_px * len(entries)), width, 3), 255, dtype=np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    left = image.shape[1] + gap
    for row, ((_, color), ink) in enumerate(zip(entries, inks, strict=True)):
        top = gap + row * row_px
        swatch_top = top + max(ink.shape[0] - text_px, 0) // 2
        canvas[swatch_top : swatch_top + text_px, left : left + text_px] = color
        draw_ink(canvas, ink, left + text_px + gap, top, INK)
    return canvas
