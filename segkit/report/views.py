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
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError
from segkit.utils.text import abbreviate

PAGE_VIEW_PX, GRID_VIEW_PX = 768, 560  # longer side of an image in a page and in a grid
LEGEND_TEXT_PX = 20  # in a grid
MAX_TRIES = 50  # images per view that are looked at for one with labels
PERCENT = 100.0
VOID_COLOR = (102, 102, 102)  # in legends


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
    """Images to look at; their maps are not held, since many large ones would not fit into memory.

    Attributes:
        images: The images.
        segments: All their segments.
        size_px: All their pixels.
        notes: What the selection left out, a line each.
    """

    images: tuple[DatasetImage, ...]
    segments: tuple[Segment, ...]
    size_px: int
    notes: tuple[str, ...] = ()


def select_images(reader: DatasetReader, count: int) -> Selection:
    """Choose images with labels, spread over the dataset: of each of `count` equal parts, the first from its middle on.

    Args:
        reader: The dataset.
        count: How many images to choose.

    Returns:
        The chosen images in the order of the dataset. A part in which none of up to `MAX_TRIES` images has a label has
        no image. If no part has one, the first `count` images are chosen as they are.

    Raises:
        DatasetError: As `read_segmentation` of the reader raises.
    """
    count = min(count, len(reader.images))
    bounds = [len(reader.images) * part // count for part in range(count + 1)] if count else [0]
    chosen: list[tuple[DatasetImage, tuple[Segment, ...]]] = []
    unlabelled = 0
    for start, stop in pairwise(bounds):
        middle = (start + stop) // 2
        for image in [*reader.images[middle:stop], *reader.images[start:middle][::-1]][:MAX_TRIES]:
            segments = reader.read_segmentation(image).segments
            if any(not is_background(reader.categories[s.category_id]) for s in segments):
                chosen.append((image, segments))
                break
            unlabelled += 1
    if not chosen:
        notes = [f"looked at {unlabelled} images, none has a label"] if unlabelled else []
        return _select(((image, ()) for image in reader.images[:count]), notes)
    return _select(chosen, [f"{unlabelled} images without a label are left out; --image shows them"] * (unlabelled > 0))


def find_images(reader: DatasetReader, image_ids: Sequence[str]) -> Selection:
    """Choose images by their ids.

    Args:
        reader: The dataset.
        image_ids: As text.

    Returns:
        The images in the order of the ids.

    Raises:
        ConfigError: The dataset lacks an id.
        DatasetError: As `read_segmentation` of the reader raises.
    """
    by_id = {str(image.image_id): image for image in reader.images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(f"the dataset has no image {unknown[0]!r}", remedy=f"its ids are {abbreviate(by_id)}")
    images = [by_id[image_id] for image_id in image_ids]
    return _select((image, reader.read_segmentation(image).segments) for image in images)


def _select(images: Iterable[tuple[DatasetImage, tuple[Segment, ...]]], notes: Iterable[str] = ()) -> Selection:
    images = list(images)
    segments = tuple(segment for _, image_segments in images for segment in image_segments)
    size_px = sum(image.size_hw[0] * image.size_hw[1] for image, _ in images)
    return Selection(tuple(image for image, _ in images), segments, size_px, tuple(notes))


def read_view(
    reader: DatasetReader,
    image: DatasetImage,
    colors: Mapping[int, Color],
    side_px: int = PAGE_VIEW_PX,
    *,
    names: bool = True,
    alpha: float = ALPHA,
) -> View:
    """Read an image and draw its labels over it, at the size at which it will be looked at.

    Args:
        reader: The dataset.
        image: One of its images.
        colors: category_id -> RGB, see `choose_colors`.
        side_px: Pixels of the longer side, see `scale_image`.
        names: As `draw_panoptic` takes it.
        alpha: As `draw_panoptic` takes it.

    Returns:
        The view. Void is hatched if the dataset marks it.

    Raises:
        DatasetError: As the reader raises.
    """
    segmentation = reader.read_segmentation(image)
    pixels = scale_image(reader.read_image(image), side_px)
    (height, width), (new_height, new_width) = image.size_hw, pixels.shape[:2]
    rows, columns = np.arange(new_height) * height // new_height, np.arange(new_width) * width // new_width
    shown = PanopticSegmentation(segmentation.segment_ids[rows[:, None], columns], segmentation.segments)
    overlay = draw_panoptic(
        pixels, shown, reader.categories, colors=colors, alpha=alpha, names=names, hatch_void=reader.marks_void
    )
    legend = build_legend(segmentation.segments, height * width, reader.categories, colors, reader.marks_void)
    return View(str(image.image_id), pixels, overlay, legend)


def build_legend(
    segments: Iterable[Segment],
    size_px: int,
    categories: CategorySet,
    colors: Mapping[int, Color],
    marks_void: bool = False,
) -> tuple[LegendEntry, ...]:
    """List the classes of segments: things with the number of instances, then stuff with its share of the pixels.

    Args:
        segments: Of one image or several, with category ids of `categories`.
        size_px: Pixels of the images.
        categories: Names of the classes.
        colors: category_id -> RGB, see `choose_colors`.
        marks_void: Whether void is drawn, and comes last.

    Returns:
        The most frequent classes first; no background.
    """
    instances, areas_px, crowds = Counter[int](), Counter[int](), set[int]()
    for segment in segments:
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
        count = f"{instances[key]} + crowds" if key in crowds else str(instances[key])
        count = count if category.isthing else _format_share(areas_px[key], size_px)
        entries.append(LegendEntry(shown_names[key], colors[key], count))
    void_px = size_px - areas_px.total()
    if marks_void and void_px > 0:
        entries.append(LegendEntry("void (hatched)", VOID_COLOR, _format_share(void_px, size_px)))
    return tuple(entries)


def _format_share(area_px: int, size_px: int) -> str:
    percent = PERCENT * area_px / max(size_px, 1)
    return f"{percent:.0f} %" if percent >= 1 else "< 1 %"


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
    grid = draw_image_grid(rows, ["image", "overlay"], titles, cell_px=GRID_VIEW_PX)
    return np.concatenate([grid, draw_legend(legend, grid.shape[1], LEGEND_TEXT_PX)])
