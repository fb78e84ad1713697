"""A grid of pictures with titles, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats.image_io import read_image
from segkit.report.overlay import draw_panoptic
from segkit.report.pixels import check_rgb
from segkit.report.text_rendering import draw_ink, render_text, shorten
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError

Columns = Mapping[str, PanopticSegmentation]
INK = (32, 36, 42)
ROW_TITLES_AT_MOST = 0.5  # of a cell's side


def draw_image_grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    column_titles: Sequence[str],
    row_titles: Sequence[str] | None = None,
    cell_px: int = 320,
) -> NDArray[np.uint8]:
    """Set pictures into rows and columns on white, with a title over each column and before each row.

    rows: of (h, w, 3) uint8 RGB pictures, as many per row as there are column titles, of any sizes. Each is scaled,
    its aspect kept, to fit into cell_px x cell_px: enlarged by whole factors only, pixels staying sharp squares;
    reduced by averaging. Titles too long for their place are cut. Returns (H, W, 3) uint8 RGB; without rows, the
    column titles alone. Raises ValueError for no columns, other picture shapes, empty pictures or counts that differ.
    """
    _check(rows, column_titles, row_titles, cell_px)
    text_px, gap = max(10, round(cell_px * 0.055)), max(4, cell_px // 32)
    cells = [[_fit(picture, cell_px) for picture in row] for row in rows]
    before = [_ink(title, text_px, int(cell_px * ROW_TITLES_AT_MOST)) for title in row_titles or [""] * len(rows)]
    widths = [max((row[i].shape[1] for row in cells), default=cell_px) for i in range(len(column_titles))]
    over = [_ink(title, text_px, width) for title, width in zip(column_titles, widths, strict=True)]
    heights = [max(block.shape[0] for block in (*row, ink)) for row, ink in zip(cells, before, strict=True)]
    lefts = _starts(gap, [max((ink.shape[1] for ink in before), default=0), *widths], gap)
    tops = _starts(gap, [max(ink.shape[0] for ink in over), *heights], gap)
    canvas = np.full((tops[-1], lefts[-1], 3), 255, dtype=np.uint8)
    for ink, left, width in zip(over, lefts[1:], widths, strict=False):
        draw_ink(canvas, ink, left + (width - ink.shape[1]) // 2, gap, INK)
    for row, ink, top, height in zip(cells, before, tops[1:], heights, strict=False):
        draw_ink(canvas, ink, gap, top + (height - ink.shape[0]) // 2, INK)
        for cell, left, width in zip(row, lefts[1:], widths, strict=False):
            y, x = top + (height - cell.shape[0]) // 2, left + (width - cell.shape[1]) // 2
            canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return canvas


def draw_fusion_grid(rows: Sequence[tuple[str, Path, Columns]], categories: CategorySet) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a row for each (title, image file, title -> segmentation), the image in front.

    Segmentations have category ids of the dataset; a row without one of the titles has a blank there. DatasetError
    where an image is missing, unreadable or of another size than its segmentations.
    """
    titles = [*dict.fromkeys(title for _, _, made in rows for title in made)]
    pictures = []
    for _, path, made in rows:
        image = read_image(path)
        cells = [image]
        for title in titles:
            segmentation = made.get(title)
            if segmentation is not None and segmentation.segment_ids.shape != image.shape[:2]:
                expected, got = segmentation.segment_ids.shape, image.shape[:2]
                raise DatasetError(f"expected an image of {expected} pixels, as was fused, got {got}", where=path)
            cells.append(
                np.full_like(image, 255) if segmentation is None else draw_panoptic(image, segmentation, categories)
            )
        pictures.append(cells)
    return draw_image_grid(pictures, ["image", *titles], [title for title, _, _ in rows])


def _check(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    column_titles: Sequence[str],
    row_titles: Sequence[str] | None,
    cell_px: int,
) -> None:
    if not column_titles:
        raise ValueError("column_titles must have at least one entry, got none")
    if cell_px < 1:
        raise ValueError(f"cell_px must be at least 1, got {cell_px}")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"row_titles must have one entry per row, got {len(row_titles)} for {len(rows)} rows")
    for number, row in enumerate(rows):
        if len(row) != len(column_titles):
            rule = "every row must have one picture per column title"
            raise ValueError(f"{rule}, got {len(row)} for {len(column_titles)} in row {number}")
        for picture in row:
            check_rgb(picture, f"pictures of row {number}")
            if not picture.size:
                raise ValueError(f"pictures of row {number} must not be empty, got {picture.shape}")


def _fit(picture: NDArray[np.uint8], cell_px: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = cell_px // max(height, width)
    if factor >= 1:
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = cell_px / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _ink(title: str, text_px: int, width_px: int) -> NDArray[np.uint8]:
    """The title's coverage as `render_text` gives it, nothing at all, (0, 0), where no ink is left of it."""
    ink = render_text(shorten(title, text_px, width_px), text_px)
    return ink if ink.size else np.zeros((0, 0), dtype=np.uint8)


def _starts(first: int, sizes: Sequence[int], gap: int) -> list[int]:
    """Where each of the sizes begins, a gap after each but the empty ones, and last where the canvas ends."""
    return [int(start) for start in np.cumsum([first, *(size + gap if size else 0 for size in sizes)])]
