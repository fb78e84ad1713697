"""Draw segments and instances over their image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.report.rendering import check_rgb, draw_ink, find_largest_box, render_text
from segkit.structures import VOID, CategorySet, InstanceMasks, PanopticSegmentation, Segment, default_color

MIN_LABELLED_WIDTH_PX = 200  # in a smaller image, text would hide the segments
MIN_TEXT_PX = 10
SPREAD = 64  # largest distance of a channel from the colour of its class (panopticapi's IdGenerator: 30)
R3_STEPS = (0.8191725134, 0.6710436067, 0.5497004779)  # of Roberts' R3 sequence: neighbours differ most
VOID_BRIGHTNESS = 0.35
LABEL_DARKENING = 0.28
OUTLINE_WHITE = 0.6
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class _Layer:
    """One segment to draw; `mask` (h, w) says which pixels of the window (rows, columns) it covers."""

    window: tuple[slice, slice]
    mask: NDArray[np.bool_]
    color: tuple[int, int, int]
    labels: tuple[str, ...]  # the longest first; the first one that fits is written
    iscrowd: bool = False


def draw_panoptic(
    image: NDArray[np.uint8],
    segmentation: PanopticSegmentation,
    categories: CategorySet,
    *,
    names: bool = True,
    alpha: float = 0.55,
) -> NDArray[np.uint8]:
    """Colour every segment over its image.

    Stuff and the first instance of a class have the colour of the category, further instances have similar colours.
    Void is darkened and hatched, crowds are hatched.

    Args:
        image: (H, W, 3) uint8 RGB, not modified; may be empty.
        segmentation: Segmentation of (H, W) pixels; its segments have the dataset's category ids.
        categories: Names and colours of the classes.
        names: Whether to write class and score into each segment that has room, on images of at least 200 pixels width.
        alpha: Weight of the colours, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: The sizes differ, a category_id is not in the set, or the map has an id without a Segment.
    """
    ids = segmentation.segment_ids
    _check(image, alpha)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"segment_ids must have the image's shape {image.shape[:2]}, got {ids.shape}")
    layers = _build_panoptic_layers(segmentation, categories)
    canvas = image.copy()
    _darken(canvas, ids == VOID)
    return _draw(canvas, layers, [layer.mask for layer in layers], names, alpha)


def draw_instances(
    image: NDArray[np.uint8],
    masks: InstanceMasks,
    names: Sequence[str],
    *,
    min_score: float = 0.5,
    alpha: float = 0.55,
) -> NDArray[np.uint8]:
    """Colour the instances over their image; no pixel outside their masks changes.

    Small instances are drawn over large ones, equally large ones in their order. Every outline is complete.

    Args:
        image: (H, W, 3) uint8 RGB, not modified.
        masks: Instances of an image of (H, W) pixels.
        names: Class names, indexed by masks.class_ids.
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
    layers = _build_instance_layers(masks, names, min_score)
    owner = np.zeros(masks.size_hw, dtype=np.int32)
    for number, layer in enumerate(layers, 1):
        owner[layer.window][layer.mask] = number
    visible = [owner[layer.window] == number for number, layer in enumerate(layers, 1)]
    return _draw(image.copy(), layers, visible, True, alpha)


def _check(image: NDArray[np.uint8], alpha: float) -> None:
    check_rgb(image, "image")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")


def _build_panoptic_layers(segmentation: PanopticSegmentation, categories: CategorySet) -> list[_Layer]:
    boxes = {segment_id: extent.bbox_xywh for segment_id, extent in segmentation.runs.extents().items()}
    by_id = {segment.segment_id: segment for segment in segmentation.segments}
    if unknown := sorted({s.category_id for s in by_id.values()} - {c.category_id for c in categories.categories}):
        raise ValueError(f"category_id of every segment must be in categories, got {unknown}")
    if unlisted := sorted(set(boxes) - set(by_id)):
        raise ValueError(f"segments must have one Segment per id in the map, got none for {unlisted}")
    layers, ordinals = [], defaultdict[int, Iterator[int]](count)
    for segment_id, (left, top, width, height) in boxes.items():
        segment = by_id[segment_id]
        category = categories[segment.category_id]
        color = category.color
        if category.isthing and not segment.iscrowd:
            color = _compute_instance_color(color, next(ordinals[category.category_id]))
        window = slice(top, top + height), slice(left, left + width)
        mask = segmentation.segment_ids[window] == segment_id
        layers.append(_Layer(window, mask, color, _list_labels(category.name, segment), segment.iscrowd))
    return layers


def _list_labels(name: str, segment: Segment) -> tuple[str, ...]:
    if segment.iscrowd:
        return f"{name} (crowd)", name
    return (name,) if segment.score is None else (f"{name} {segment.score:.2f}", name)


def _build_instance_layers(masks: InstanceMasks, names: Sequence[str], min_score: float) -> list[_Layer]:
    for class_id in masks.class_ids.tolist():
        if not 0 <= class_id < len(names):
            raise ValueError(f"names must have one entry per class id, got {len(names)} for class id {class_id}")
    areas = np.array([np.count_nonzero(crop) for crop in masks.crops], dtype=np.int64)
    layers, ordinals = [], defaultdict[int, Iterator[int]](count)
    for index in np.argsort(-areas, kind="stable").tolist():
        score, class_id = float(masks.scores[index]), int(masks.class_ids[index])
        if areas[index] and score >= min_score:
            color = _compute_instance_color(default_color(class_id), next(ordinals[class_id]))
            labels = (f"{names[class_id]} {score:.2f}", names[class_id])
            layers.append(_Layer(masks.window(index), masks.crops[index], color, labels))
    return layers


def _compute_instance_color(base: tuple[int, int, int], ordinal: int) -> tuple[int, int, int]:
    """The class's colour for its first instance, a similar one for each further instance, mirrored into 0..255."""
    if not ordinal:
        return base
    shifted = np.rint(base + (2 * ((0.5 + ordinal * np.array(R3_STEPS)) % 1.0) - 1) * SPREAD)
    red, green, blue = (255 - np.abs(255 - np.abs(shifted))).astype(int).tolist()
    return red, green, blue


def _draw(
    canvas: NDArray[np.uint8], layers: list[_Layer], visible: list[NDArray[np.bool_]], labelled: bool, alpha: float
) -> NDArray[np.uint8]:
    """Fill the visible masks of the layers, then draw outlines and labels, in place."""
    if not canvas.size:
        return canvas
    for layer, mask in zip(layers, visible, strict=True):
        _fill(canvas, layer, mask, alpha)
    line_px = max(1, round(min(canvas.shape[:2]) / 500))
    for layer in layers:
        _outline(canvas, layer, line_px)
    if labelled and canvas.shape[1] >= MIN_LABELLED_WIDTH_PX:
        for layer, mask in zip(layers, visible, strict=True):
            _label(canvas, layer, mask)
    return canvas


def _darken(canvas: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    window = slice(0, mask.shape[0]), slice(0, mask.shape[1])
    brightness = np.where(_stripes(window, canvas.shape), VOID_BRIGHTNESS * 0.6, VOID_BRIGHTNESS)[mask]
    grey = canvas[mask].mean(axis=1) * brightness
    canvas[mask] = np.rint(grey).astype(np.uint8)[:, None]


def _fill(canvas: NDArray[np.uint8], layer: _Layer, mask: NDArray[np.bool_], alpha: float) -> None:
    region = canvas[layer.window]
    color = np.array(layer.color, dtype=np.float32)
    weight = np.float32(alpha)
    if layer.iscrowd:
        striped = _stripes(layer.window, canvas.shape)[mask]
        weight = np.where(striped, alpha, alpha * 0.35).astype(np.float32)[:, None]
    region[mask] = np.rint(region[mask] * (1 - weight) + color * weight).astype(np.uint8)


def _stripes(window: tuple[slice, slice], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Diagonal stripes over the window, continuous over the whole image."""
    period = max(4, min(shape[:2]) // 40)
    ys, xs = np.arange(window[0].start, window[0].stop), np.arange(window[1].start, window[1].stop)
    striped: NDArray[np.bool_] = (ys[:, None] + xs) % period < period // 2
    return striped


def _outline(canvas: NDArray[np.uint8], layer: _Layer, line_px: int) -> None:
    """Draw a bright line along the inside of the layer's border, but not along the border of the image."""
    rows, columns = layer.window
    height, width = canvas.shape[:2]
    pad_y = line_px * (rows.start > 0), line_px * (rows.stop < height)
    pad_x = line_px * (columns.start > 0), line_px * (columns.stop < width)
    outside = np.pad(~layer.mask, (pad_y, pad_x), constant_values=True).astype(np.uint8)
    near = cv2.dilate(outside, np.ones((2 * line_px + 1, 2 * line_px + 1), dtype=np.uint8))
    near = near[pad_y[0] : len(near) - pad_y[1], pad_x[0] : near.shape[1] - pad_x[1]]
    color = np.rint(np.array(layer.color) * (1 - OUTLINE_WHITE) + 255 * OUTLINE_WHITE).astype(np.uint8)
    canvas[layer.window][layer.mask & (near > 0)] = color


def _label(canvas: NDArray[np.uint8], layer: _Layer, mask: NDArray[np.bool_]) -> None:
    """Write the longest label that fits into the mask at a readable size, on a darkened box."""
    shorter = min(canvas.shape[:2])
    smallest, largest = max(MIN_TEXT_PX, round(0.022 * shorter)), max(MIN_TEXT_PX + 2, round(0.036 * shorter))
    for label in layer.labels:
        ink = render_text(label, largest)
        needed = _padded(ink)
        left, top, width, height = find_largest_box(mask, needed[1] / needed[0])
        for size in range(min(largest, height), smallest - 1, -1):
            ink = render_text(label, size)
            box_height, box_width = _padded(ink)
            if ink.shape[1] and box_height <= height and box_width <= width:
                left += (width - box_width) // 2 + layer.window[1].start
                top += (height - box_height) // 2 + layer.window[0].start
                box = canvas[top : top + box_height, left : left + box_width]
                box[:] = np.rint(box * LABEL_DARKENING).astype(np.uint8)
                pad_y, pad_x = (box_height - ink.shape[0]) // 2, (box_width - ink.shape[1]) // 2
                draw_ink(canvas, ink, left + pad_x, top + pad_y, WHITE)
                return


def _padded(ink: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of the box around the ink."""
    pad = max(1, ink.shape[0] // 5)
    return ink.shape[0] + 2 * pad, ink.shape[1] + 4 * pad
