"""Views of a dataset: an image, its overlay and a legend, at a size at which names and outlines can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.report.grids import draw_image_grid
from segkit.report.overlay import ALPHA, draw_panoptic
from segkit.report.palette import Color, is_background, list_shown_names
from segkit.report.rendering import INK, draw_ink, render_text, scale_image, shorten
from segkit.structures import CategorySet, PanopticSegmentation

PAGE_VIEW_PX, GRID_VIEW_PX = 768, 560  # longer side of an image in a page and in a grid
LEGEND_TEXT_PX = 20  # in a grid
MAX_TRIES = 20  # images per view that are looked at for one with labels
PERCENT = 100.0


@dataclass(frozen=True)
class LegendEntry:
    """One class of a legend.

    Attributes:
        name: As overlays write it.
        color: RGB, as overlays draw it.
        count: Number of the instances, or share of the pixels.
    """

    name: str
    color: Color
    count: str


@dataclass(frozen=True)
class View:
    """One image of a dataset to look at.

    Attributes:
        title: Its name.
        image: (h, w, 3) uint8 RGB.
        overlay: (h, w, 3) uint8 RGB, the image with its segments.
        legend: The classes in it.
    """

    title: str
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True)
class Selection:
    """Images to look at.

    Attributes:
        images: (image, its segmentation).
        left_out: Number of images that were looked at and have no label.
    """

    images: list[tuple[DatasetImage, PanopticSegmentation]]
    left_out: int


def select_images(reader: DatasetReader, count: int) -> Selection:
    """Choose images with labels, spread over the dataset: of each of `count` equal parts, the first from its middle on.

    Args:
        reader: The dataset.
        count: How many images to choose.

    Returns:
        The chosen images in the order of the dataset. A part in which none of up to `MAX_TRIES` images has a label has
        no image. If no part has one, the first `count` images are chosen as they are.
    """
    count = min(count, len(reader.images))
    bounds = [len(reader.images) * part // count for part in range(count + 1)] if count else [0]
    chosen, left_out = [], 0
    for start, stop in pairwise(bounds):
        middle = (start + stop) // 2
        for image in [*reader.images[middle:stop], *reader.images[start:middle][::-1]][:MAX_TRIES]:
            segmentation = reader.read_segmentation(image)
            if any(not is_background(reader.categories[s.category_id]) for s in segmentation.segments):
                chosen.append((image, segmentation))
                break
            left_out += 1
    if chosen:
        return Selection(chosen, left_out)
    return Selection([(image, reader.read_segmentation(image)) for image in reader.images[:count]], 0)


def draw_view(
    title: str,
    image: NDArray[np.uint8],
    segmentation: PanopticSegmentation,
    categories: CategorySet,
    colors: Mapping[int, Color],
    *,
    side_px: int = PAGE_VIEW_PX,
    names: bool = True,
    alpha: float = ALPHA,
    hatch_void: bool = False,
) -> View:
    """Draw a segmentation over its image, at the size at which it will be looked at.

    Args:
        title: Name of the view.
        image: (H, W, 3) uint8 RGB.
        segmentation: Segmentation of (H, W) pixels, with category ids of `categories`.
        categories: Names of the classes.
        colors: category_id -> RGB, see `choose_colors`.
        side_px: Pixels of the longer side, see `scale_image`.
        names: As `draw_panoptic` takes it.
        alpha: As `draw_panoptic` takes it.
        hatch_void: As `draw_panoptic` takes it.

    Returns:
        The view.

    Raises:
        ValueError: As `draw_panoptic` raises.
    """
    scaled = scale_image(image, side_px)
    (height, width), (new_height, new_width) = image.shape[:2], scaled.shape[:2]
    rows, columns = np.arange(new_height) * height // new_height, np.arange(new_width) * width // new_width
    shown = PanopticSegmentation(segmentation.segment_ids[rows[:, None], columns], segmentation.segments)
    overlay = draw_panoptic(scaled, shown, categories, colors=colors, names=names, alpha=alpha, hatch_void=hatch_void)
    return View(title, scaled, overlay, build_legend([segmentation], categories, colors))


def build_legend(
    segmentations: Iterable[PanopticSegmentation], categories: CategorySet, colors: Mapping[int, Color]
) -> tuple[LegendEntry, ...]:
    """List the classes of segmentations: things with the number of instances, then stuff with its share of the pixels.

    Args:
        segmentations: With category ids of `categories`.
        categories: Names of the classes.
        colors: category_id -> RGB, see `choose_colors`.

    Returns:
        The most frequent classes first; no background.
    """
    instances, areas_px, size_px = Counter[int](), Counter[int](), 0
    crowds = set[int]()
    for segmentation in segmentations:
        size_px += segmentation.segment_ids.size
        for segment in segmentation.segments:
            instances[segment.category_id] += not segment.iscrowd
            areas_px[segment.category_id] += segment.area_px
            crowds |= {segment.category_id} if segment.iscrowd else set()
    shown_names = list_shown_names(categories)
    drawn = [c for c in categories.categories if c.category_id in areas_px and c.category_id in colors]
    entries = []
    for category in sorted(
        drawn, key=lambda c: (not c.isthing, -(instances if c.isthing else areas_px)[c.category_id])
    ):
        key = category.category_id
        percent = PERCENT * areas_px[key] / max(size_px, 1)
        count = f"{percent:.0f} %" if percent >= 1 else "< 1 %"
        if category.isthing:
            count = f"{instances[key]} + crowds" if key in crowds else str(instances[key])
        entries.append(LegendEntry(shown_names[key], colors[key], count))
    return tuple(entries)


def draw_legend(entries: Sequence[LegendEntry], width_px: int, text_px: int) -> NDArray[np.uint8]:
    """Draw a legend on white, in as many rows as it needs.

    Args:
        entries: The classes.
        width_px: Width of the image.
        text_px: Size of the text.

    Returns:
        (H, width_px, 3) uint8 RGB; H is 0 without entries.
    """
    gap, chip = text_px, round(0.8 * text_px)
    row_px, left, top = 2 * text_px, gap, text_px // 2
    placed = []
    for entry in entries:
        text = shorten(f"{entry.name} ({entry.count})", text_px, width_px - 3 * gap - chip)
        ink = render_text(text, text_px)
        if left > gap and left + chip + gap // 2 + ink.shape[1] + gap > width_px:
            left, top = gap, top + row_px
        placed.append((left, top, ink, entry.color))
        left += chip + gap // 2 + ink.shape[1] + 2 * gap
    canvas = np.full((top + row_px if placed else 0, width_px, 3), 255, dtype=np.uint8)
    for left, top, ink, color in placed:
        offset = (ink.shape[0] - chip) // 2
        canvas[top + offset : top + offset + chip, left : left + chip] = color
        draw_ink(canvas, ink, left + chip + gap // 2, top, INK)
    return canvas


def draw_view_grid(views: Sequence[View], legend: Sequence[LegendEntry]) -> NDArray[np.uint8]:
    """Arrange views of `GRID_VIEW_PX` in one image, a row each, above a legend.

    Args:
        views: The views.
        legend: The classes of all views.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows, titles = [(view.image, view.overlay) for view in views], [view.title for view in views]
    grid = draw_image_grid(rows, ["image", "ground truth"], titles, cell_px=GRID_VIEW_PX)
    return np.concatenate([grid, draw_legend(legend, grid.shape[1], LEGEND_TEXT_PX)])
