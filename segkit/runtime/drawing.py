"""Predictions and ground truth drawn over their image, with a legend of the classes if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segkit.report.overlay import draw_instances, draw_panoptic
from segkit.report.palette import Color, choose_colors, list_drawn_colors, list_shown_names
from segkit.structures import CategorySet, InstanceMasks, PanopticSegmentation

Drawable: TypeAlias = "PanopticSegmentation | InstanceMasks"

MIN_SCORE = 0.5  # of instances that are drawn, if nothing else is said


def draw(
    image: NDArray[np.uint8],
    drawable: Drawable,
    categories: CategorySet,
    colors: Mapping[int, Any] | None = None,
    *,
    min_score: float = MIN_SCORE,
    **options: Any,
) -> NDArray[np.uint8]:
    """Draw a ground truth or a prediction over its image.

    Args:
        image: (H, W, 3) uint8 RGB.
        drawable: of the same size.
        categories: the dataset's categories.
        colors: category_id -> RGB; None: those of `list_drawn_colors`.
        min_score: instances of a lower score are not drawn, [0, 1]; segments of a panoptic map all are.
        **options: keyword arguments of `draw_panoptic` and `draw_instances`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if isinstance(drawable, PanopticSegmentation):
        return draw_panoptic(image, drawable, categories, colors=colors, **options)
    colors = colors or list_drawn_colors(categories)
    thing_colors = [colors.get(thing.category_id, thing.color) for thing in categories.things]
    names = [thing.name for thing in categories.things]
    return draw_instances(image, drawable, names, colors=thing_colors, min_score=min_score, **options)


def list_legend(drawable: Drawable, categories: CategorySet, min_score: float = MIN_SCORE) -> list[tuple[str, Color]]:
    """List the classes that `draw` draws, with their colours.

    Args:
        drawable: what is drawn.
        categories: the dataset's categories.
        min_score: see `draw`.

    Returns:
        (name, RGB) of each, things first, then by category_id. Further instances of a class have similar colours.
    """
    if isinstance(drawable, PanopticSegmentation):
        drawn = {segment.category_id for segment in drawable.segments if segment.area_px}
        colors = choose_colors(drawable.segments, categories)
    else:
        is_drawn = (drawable.scores >= min_score) & (drawable.areas_px > 0)
        drawn = {categories.category_id(int(i), isthing=True) for i in drawable.class_ids[is_drawn]}
        colors = list_drawn_colors(categories)
    names = list_shown_names(categories)
    classes = [c for c in (*categories.things, *categories.stuff) if c.category_id in drawn & colors.keys()]
    return [(names[c.category_id], colors[c.category_id]) for c in classes]
