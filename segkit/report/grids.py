"""Grids of images with titles, as one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats.image_io import read_image
from segkit.report.overlay import draw_panoptic
from segkit.report.palette import choose_colors
from segkit.report.rendering import INK, check_rgb, draw_ink, render_text, scale_image, shorten
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError

MAX_TITLE_PX = 20  # height of the text
MAX_ROW_TITLE = 0.5  # of a cell's side


def draw_image_grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    column_titles: Sequence[str],
    row_titles: Sequence[str] | None = None,
    cell_px: int = 320,
) -> NDArray[np.uint8]:
    """Arrange images in rows and columns on white, with a title above each column and before each row.

    Images keep their aspect. Small ones are enlarged by whole factors, so that pixels stay sharp squares; large ones
    are reduced by averaging. Titles that are too long are shortened.

    Args:
        rows: (h, w, 3) uint8 RGB images of any sizes, in each row one per column title.
        column_titles: Titles of the columns, at least one.
        row_titles: Titles of the rows; None for none.
        cell_px: Pixels of a cell's side; each image is scaled to fit into it.

    Returns:
        (H, W, 3) uint8 RGB; only the column titles if there are no rows.

    Raises:
        ValueError: There are no columns, an image is empty or has another shape, or the numbers of titles and images
            differ.
    """
    if not column_titles:
        raise ValueError("column_titles must have at least one entry, got none")
    if cell_px < 1:
        raise ValueError(f"cell_px must be at least 1, got {cell_px}")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"row_titles must have one entry per row, got {len(row_titles)} for {len(rows)} rows")
    _check_rows(rows, len(column_titles))
    text_px, gap = min(max(10, round(cell_px * 0.055)), MAX_TITLE_PX), max(4, cell_px // 32)
    cells = [[scale_image(image, cell_px) for image in row] for row in rows]
    row_inks = [_render_title(title, text_px, int(cell_px * MAX_ROW_TITLE)) for title in row_titles or [""] * len(rows)]
    widths = [max((row[i].shape[1] for row in cells), default=cell_px) for i in range(len(column_titles))]
    column_inks = [_render_title(title, text_px, width) for title, width in zip(column_titles, widths, strict=True)]
    heights = [max(block.shape[0] for block in (*row, ink)) for row, ink in zip(cells, row_inks, strict=True)]
    lefts = _compute_starts(gap, [max((ink.shape[1] for ink in row_inks), default=0), *widths], gap)
    tops = _compute_starts(gap, [max(ink.shape[0] for ink in column_inks), *heights], gap)
    canvas = np.full((tops[-1], lefts[-1], 3), 255, dtype=np.uint8)
    for ink, left, width in zip(column_inks, lefts[1:], widths, strict=False):
        draw_ink(canvas, ink, left + (width - ink.shape[1]) // 2, gap, INK)
    for row, ink, top, height in zip(cells, row_inks, tops[1:], heights, strict=False):
        draw_ink(canvas, ink, gap, top + (height - ink.shape[0]) // 2, INK)
        for cell, left, width in zip(row, lefts[1:], widths, strict=False):
            y, x = top + (height - cell.shape[0]) // 2, left + (width - cell.shape[1]) // 2
            canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return canvas


def draw_fusion_grid(
    rows: Sequence[tuple[str, Path, Mapping[str, PanopticSegmentation]]], categories: CategorySet
) -> NDArray[np.uint8]:
    """Draw the same images fused by several methods side by side: a row per image, the image in the first column.

    Void is hatched.

    Args:
        rows: (row title, image file, column title -> segmentation); category ids are the dataset's. If a row lacks one
            of the columns, its cell is blank.
        categories: Names and colours of the classes.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: An image is missing, unreadable or of another size than its segmentations.
    """
    titles = [*dict.fromkeys(title for _, _, segmentations in rows for title in segmentations)]
    cells = []
    colors = choose_colors((s for _, _, row in rows for fused in row.values() for s in fused.segments), categories)
    for _, path, segmentations in rows:
        image = read_image(path)
        by_title = dict.fromkeys(titles, np.full_like(image, 255))
        for title, segmentation in segmentations.items():
            expected, got = segmentation.segment_ids.shape, image.shape[:2]
            if got != expected:
                problem = f"expected an image of {expected} pixels, the size of its segmentation, got {got}"
                raise DatasetError(problem, where=path)
            by_title[title] = draw_panoptic(image, segmentation, categories, colors=colors, hatch_void=True)
        cells.append([image, *by_title.values()])
    return draw_image_grid(cells, ["image", *titles], [title for title, _, _ in rows])


def _check_rows(rows: Sequence[Sequence[NDArray[np.uint8]]], columns: int) -> None:
    for number, row in enumerate(rows):
        if len(row) != columns:
            rule = "every row must have one image per column title"
            raise ValueError(f"{rule}, got {len(row)} for {columns} in row {number}")
        for image in row:
            check_rgb(image, f"images of row {number}")
            if not image.size:
                raise ValueError(f"images of row {number} must not be empty, got {image.shape}")


def _render_title(title: str, text_px: int, width_px: int) -> NDArray[np.uint8]:
    """The shortened title as `render_text` draws it; (0, 0) if it has no ink, so that it takes no space."""
    ink = render_text(shorten(title, text_px, width_px), text_px)
    return ink if ink.size else np.zeros((0, 0), dtype=np.uint8)


def _compute_starts(first: int, sizes: Sequence[int], gap: int) -> list[int]:
    """Start of each size, then the end of the canvas; every size but 0 is followed by a gap."""
    return [int(start) for start in np.cumsum([first, *(size + gap if size else 0 for size in sizes)])]
