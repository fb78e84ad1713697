"""Draw segments and instances over their image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.report.labels import Label, Window, draw_labels
from segkit.report.palette import Color, choose_colors, choose_instance_colors, is_background, list_shown_names
from segkit.report.rendering import check_rgb
from segkit.structures import VOID, CategorySet, InstanceMasks, PanopticSegmentation, default_color

ALPHA = 0.55  # default weight of the colours
MIN_LABELLED_WIDTH_PX = 200  # in a smaller image, text would hide the segments
VOID_BRIGHTNESS, VOID_STRIPES = 0.6, 0.4  # of the grey that void becomes
CROWD_WEIGHT = 0.35  # of the colour between the stripes
OUTLINE_WHITE = 0.6
BAND_PX = 2**15  # pixels that are coloured at once: they fit the cache, which takes 0.5 of the time of the whole image


@dataclass(frozen=True)
class _Layers:
    """The segments to draw, numbered from 1; 0 stands for none.

    Attributes:
        numbers: (H, W) int32, the segment that each pixel shows.
        edges: (H, W) int32, the segment whose outline each pixel shows.
        labels: Labels of the segments 1, 2, ...
        crowds: Numbers of the crowds.
    """

    numbers: NDArray[np.int32]
    edges: NDArray[np.int32]
    labels: list[Label]
    crowds: tuple[int, ...] = ()


def draw_panoptic(
    image: NDArray[np.uint8],
    segmentation: PanopticSegmentation,
    categories: CategorySet,
    *,
    colors: Mapping[int, Color] | None = None,
    segment_colors: Mapping[int, Color] | None = None,
    names: bool = True,
    scores: bool = True,
    alpha: float = ALPHA,
    hatch_void: bool = False,
) -> NDArray[np.uint8]:
    """Colour every segment over its image.

    Further instances of a class have similar ones, or any hue if the
    dataset has only one class. Crowds are hatched. A class that means background leaves the image as it is.

    Args:
        image: (H, W, 3) uint8 RGB, not modified; may be empty.
        segmentation: Segmentation of (H, W) pixels; its segments have the dataset's category ids.
        categories: Names and colours of the classes.
        colors: category_id -> RGB; by default, and for classes that it lacks, `choose_colors` of the segmentation.
        segment_colors: segment_id -> RGB, in place of the colours of these segments.
        names: Whether to write the classes where `place_labels` says, on images of at least 200 pixels width.
        scores: Whether to write the scores of predicted things after their classes.
        alpha: Weight of the colours, 0..1.
        hatch_void: Whether void is darkened and hatched; otherwise it stays as it is.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: The sizes differ, a category_id is not in the set, or the map has an id without a Segment.
    """
    ids = segmentation.segment_ids
    _check(image, alpha)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"segment_ids must have the image's shape {image.shape[:2]}, got {ids.shape}")
    layers = _build_panoptic_layers(segmentation, categories, colors, segment_colors or {}, scores)
    canvas = image.copy()
    if hatch_void:
        _darken(canvas, ids == VOID)
    return _draw(canvas, layers, names, alpha)


def draw_instances(
    image: NDArray[np.uint8],
    masks: InstanceMasks,
    class_names: Sequence[str],
    *,
    colors: Sequence[Color] | None = None,
    names: bool = True,
    scores: bool = True,
    min_score: float = 0.5,
    alpha: float = ALPHA,
) -> NDArray[np.uint8]:
    """Colour the instances over their image.

    Small instances are drawn over large ones, equally large ones in their order. Every outline is complete.

    Args:
        image: (H, W, 3) uint8 RGB, not modified.
        masks: Instances of an image of (H, W) pixels.
        class_names: Names, indexed by masks.class_ids.
        colors: RGB of the classes, indexed in the same way; by default `default_color`.
        names: As `draw_panoptic` takes it.
        scores: As `draw_panoptic` takes it.
        min_score: Instances with a lower score are not drawn.
        alpha: Weight of the colours, 0..1.

    Returns:
        (H, W, 3) uint8 RGB; a copy of the image if there is no instance.

    Raises:
        ValueError: The sizes differ or a class id has no name.
    """
    _check(image, alpha)
    if tuple(masks.size_hw) != image.shape[:2]:
        raise ValueError(f"masks must have the image's size {image.shape[:2]}, got {tuple(masks.size_hw)}")
    for class_id in masks.class_ids.tolist():
        if not 0 <= class_id < len(class_names):
            problem = f"class_names must have one entry per class id, got {len(class_names)} for class id {class_id}"
            raise ValueError(problem)
    is_drawn = (masks.areas_px > 0) & (masks.scores >= min_score)
    order = [index for index in np.argsort(-masks.areas_px, kind="stable").tolist() if is_drawn[index]]
    class_ids, windows = masks.class_ids[order].tolist(), [masks.window(index) for index in order]
    class_colors = dict(enumerate(colors or map(default_color, range(len(class_names)))))
    instances = dict(enumerate(class_ids))
    instance_colors = _color_instances(instances, windows, class_colors, all_hues=len(class_names) == 1)
    labels = []
    for row, (index, window) in enumerate(zip(order, windows, strict=True)):
        texts = _list_texts(class_names[class_ids[row]], float(masks.scores[index]) if scores else None)
        labels.append(Label(texts, instance_colors[row], True, window))
    layers = _paint([masks.crops[index] for index in order], labels, masks.size_hw)
    return _draw(image.copy(), layers, names, alpha)


def _check(image: NDArray[np.uint8], alpha: float) -> None:
    check_rgb(image, "image")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")


def _build_panoptic_layers(
    segmentation: PanopticSegmentation,
    categories: CategorySet,
    colors: Mapping[int, Color] | None,
    segment_colors: Mapping[int, Color],
    scores: bool,
) -> _Layers:
    extents = segmentation.runs.extents()
    boxes = {segment_id: extent.bbox_xywh for segment_id, extent in extents.items()}
    by_id = {segment.segment_id: segment for segment in segmentation.segments}
    if unknown := sorted({s.category_id for s in by_id.values()} - {c.category_id for c in categories.categories}):
        raise ValueError(f"category_id of every segment must be in categories, got {unknown}")
    if unlisted := sorted(set(boxes) - set(by_id)):
        raise ValueError(f"segments must have one Segment per id in the map, got none for {unlisted}")
    drawn_classes = {c.category_id for c in categories.categories if not is_background(c)}
    segments = [by_id[segment_id] for segment_id in boxes if by_id[segment_id].category_id in drawn_classes]
    segments.sort(key=lambda s: (s.isthing, -extents[s.segment_id].area_px))  # an outline is drawn in the later segment
    places = [boxes[s.segment_id] for s in segments]
    windows = [(slice(top, top + height), slice(left, left + width)) for left, top, width, height in places]
    class_colors = {**choose_colors(segmentation.segments, categories), **(colors or {})}
    shown_names = list_shown_names(categories)
    instances = {i: s.category_id for i, s in enumerate(segments) if s.isthing and not s.iscrowd}
    instance_colors = _color_instances(instances, windows, class_colors, all_hues=len(drawn_classes) == 1)
    labels = []
    for index, (segment, window) in enumerate(zip(segments, windows, strict=True)):
        name = shown_names[segment.category_id]
        texts = (f"{name} (crowd)", name) if segment.iscrowd else _list_texts(name, segment.score if scores else None)
        color = instance_colors.get(index, class_colors[segment.category_id])
        color = segment_colors.get(segment.segment_id, color)
        labels.append(Label(texts, color, segment.isthing, window))
    number_of = {s.segment_id: number for number, s in enumerate(segments, 1)}
    run_numbers = np.array([number_of.get(i, 0) for i in boxes], dtype=np.int32)
    runs = segmentation.runs
    positions = np.searchsorted(np.array([*boxes], dtype=np.int32), runs.ids)
    numbers = np.append(run_numbers, np.int32(0)).take(positions)
    numbers = np.repeat(np.where(runs.ids == VOID, 0, numbers), runs.lengths()).reshape(runs.size_hw)
    crowds = tuple(number for number, s in enumerate(segments, 1) if s.iscrowd)
    return _Layers(numbers, _find_edges(numbers, _get_line_px(runs.size_hw)), labels, crowds)


def _list_texts(name: str, score: float | None) -> tuple[str, ...]:
    return (name,) if score is None else (f"{name} {score:.2f}", name)


def _color_instances(
    class_ids: Mapping[int, int], windows: Sequence[Window], class_colors: Mapping[int, Color], all_hues: bool
) -> dict[int, Color]:
    """The colour of each instance, by its index in `windows`; `class_ids` names the class of each index."""
    by_class = defaultdict[int, list[int]](list)
    for index, class_id in class_ids.items():
        by_class[class_id].append(index)
    colors: dict[int, Color] = {}
    for class_id, indices in by_class.items():
        chosen = choose_instance_colors(class_colors[class_id], [windows[index] for index in indices], all_hues)
        colors.update(zip(indices, chosen, strict=True))
    return colors


def _paint(crops: Sequence[NDArray[np.bool_]], labels: list[Label], size_hw: tuple[int, int]) -> _Layers:
    """Paint masks in their order; the outline of a mask is complete even if another one hides a part of it."""
    numbers = np.zeros(size_hw, dtype=np.int32)
    for number, (crop, label) in enumerate(zip(crops, labels, strict=True), 1):
        numbers[label.window][crop] = number
    line_px = _get_line_px(size_hw)
    edges = _find_edges(numbers, line_px)
    for number, (crop, label) in enumerate(zip(crops, labels, strict=True), 1):
        if (numbers[label.window][crop] != number).any():
            window = tuple(slice(max(0, part.start - line_px), part.stop + line_px) for part in label.window)
            whole = np.zeros_like(edges[window])
            offsets = [part.start - outer.start for part, outer in zip(label.window, window, strict=True)]
            whole[offsets[0] : offsets[0] + crop.shape[0], offsets[1] : offsets[1] + crop.shape[1]] = crop
            edges[window][_find_edges(whole, line_px) > 0] = number
    return _Layers(numbers, edges, labels)


def _get_line_px(size_hw: tuple[int, int]) -> int:
    return max(1, round(min(size_hw) / 500))


def _find_edges(numbers: NDArray[np.int32], line_px: int) -> NDArray[np.int32]:
    """The numbers of the pixels near a smaller number, 0 elsewhere; the border of the image is no edge."""
    if not numbers.size:
        return numbers
    fits = numbers.max() < 2**16
    values: NDArray[Any] = numbers.astype(np.uint16 if fits else np.float32)  # cv2 has no int32
    kernel = np.ones((2 * line_px + 1, 2 * line_px + 1), dtype=np.uint8)
    return np.where(cv2.erode(values, kernel) < values, numbers, 0)


def _draw(canvas: NDArray[np.uint8], layers: _Layers, named: bool, alpha: float) -> NDArray[np.uint8]:
    """Fill the segments, then draw outlines and names, in place."""
    if not layers.labels:
        return canvas
    colors = np.array([(0, 0, 0), *(label.color for label in layers.labels)], dtype=np.float32)
    weights = np.full(len(colors), alpha, dtype=np.float32)
    weights[0] = 0
    outlines = np.rint(colors * (1 - OUTLINE_WHITE) + 255 * OUTLINE_WHITE).astype(np.uint8)
    stripes = _stripes(canvas.shape) if layers.crowds else None
    rows = max(BAND_PX // max(canvas.shape[1], 1), 1)
    for top in range(0, len(canvas), rows):
        band, numbers, edges = (each[top : top + rows] for each in (canvas, layers.numbers, layers.edges))
        weight = weights.take(numbers)
        if stripes is not None:
            weight[np.isin(numbers, layers.crowds) & ~stripes[top : top + rows]] *= CROWD_WEIGHT
        blended = colors.take(numbers, axis=0)
        blended -= band
        blended *= weight[..., None]
        blended += band
        band[:] = np.rint(blended, out=blended)
        is_edge = edges > 0
        band[is_edge] = outlines[edges[is_edge]]
    if named and canvas.shape[1] >= MIN_LABELLED_WIDTH_PX:
        draw_labels(canvas, layers.numbers, layers.labels)
    return canvas


def _darken(canvas: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    brightness = np.where(_stripes(canvas.shape), VOID_STRIPES, VOID_BRIGHTNESS)[mask]
    grey = canvas[mask].mean(axis=1) * brightness
    canvas[mask] = np.rint(grey).astype(np.uint8)[:, None]


def _stripes(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Diagonal stripes over an image."""
    period = max(4, min(shape[:2]) // 40)
    striped: NDArray[np.bool_] = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % period < period // 2
    return striped
