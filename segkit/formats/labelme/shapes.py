"""The shapes in labelme's JSON files: checked, turned into masks, and made from masks."""

from __future__ import annotations

import base64
import math
import reprlib
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segkit.formats.coco.masks import MAX_COORDINATE, MAX_OUTLINE_PX, RELATIVE, are_relative, is_too_long
from segkit.formats.pixel_limit import open_pillow
from segkit.structures import crop_to_rle
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler
from segkit.utils.json_fields import Entry

JSON_SUFFIX = ".json"
# Lowest and highest number of points: labelme/_shape.py, and `rotation` of tools derived from labelme.
POINTS = {
    "polygon": (3, None),
    "rectangle": (2, 4),  # two opposite corners, or in derived tools all four
    "oriented_rectangle": (4, 4),
    "rotation": (4, 4),
    "circle": (2, 2),  # the centre, and a point on the circle
    "mask": (2, 2),  # top left and bottom right pixel, both inside
    "line": (2, 2),
    "linestrip": (2, None),
    "point": (1, 1),
}
THIN = {"line", "linestrip", "point"}  # without area, unless they are drawn with a width
MAX_RADIUS = 2**14  # pixels of a circle: Pillow's numbers overflow at four times as many
MASK_MODES = {"1", "L", "P", "I", "I;16"}  # Pillow's, of one channel
CROWD = "iscrowd"  # the flag of a crowd
FLAT_PX = 0.5  # a polygon of less area is flat: the smallest one with corners on three pixels has as much
OUTSIDE_PX = 1.0  # a corner this far outside the image is on its border


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape with an area.

    Attributes:
        label: Name of the class.
        kind: polygon, rectangle (two corners), circle, mask, line, linestrip or point.
        points_xy: (N, 2) float64 pixels, as labelme has them.
        group_id: Joins the shapes of one object.
        iscrowd: Whether the shape is a crowd.
        mask: A mask's PNG in base64.
        where: File and shape, for messages.
    """

    label: str
    kind: str
    points_xy: NDArray[np.float64]
    group_id: int | str | None
    iscrowd: bool
    mask: str
    where: str

    def get_key(self) -> tuple[object, ...]:
        """What two shapes that were drawn twice have in common."""
        return self.label, self.kind, self.points_xy.tobytes(), self.mask


def parse_shape(entry: object, where: str, line_width: int = 0) -> Shape | str:
    """Check an entry of `shapes`; a point or line that is not drawn gives a line that says so.

    DatasetError if the entry is invalid. Masks are not decoded.
    """
    if not isinstance(entry, dict):
        raise DatasetError(f"expected an object, got {reprlib.repr(entry)}", where=where)
    kind = entry.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in {*POINTS, "points"}:
        problem = f"expected a shape_type among {', '.join([*POINTS, 'points'])}, got {reprlib.repr(kind)}"
        raise DatasetError(problem, where=where, remedy="draw it as a polygon")
    if kind == "points" or (kind in THIN and not line_width):
        return f"{where}: a {kind} has no area, {reprlib.repr(entry.get('label'))} is not read"
    label: str = json_fields.get_field(entry, "label", json_fields.TEXT, where)
    if not label or any(0xD800 <= ord(letter) <= 0xDFFF for letter in label):
        raise DatasetError(f"expected `label` to be a name, got {label!r}", where=where)
    points_xy = _read_points(entry, kind, where)
    group_id = entry.get("group_id")
    if type(group_id) not in (int, str, type(None)):
        raise DatasetError(f"expected `group_id` to be an integer or null, got {reprlib.repr(group_id)}", where=where)
    flags = entry.get("flags") or {}
    iscrowd = bool(json_fields.get_flag(flags, CROWD, where)) if isinstance(flags, dict) else False
    mask = json_fields.get_field(entry, "mask", json_fields.TEXT, where) if kind == "mask" else ""
    if kind in ("oriented_rectangle", "rotation") or (kind == "rectangle" and len(points_xy) > 2):
        kind = "polygon"
    if kind == "circle" and _compute_radius(points_xy) > MAX_RADIUS:
        problem = f"expected a circle with a radius of at most {MAX_RADIUS} pixels, got a larger one"
        raise DatasetError(problem, where=where, remedy="draw it as a polygon")
    if kind in ("polygon", "linestrip") and is_too_long(points_xy.ravel().tolist()):
        problem = f"expected an outline of at most {MAX_OUTLINE_PX:g} pixels, got a longer one"
        raise DatasetError(problem, where=where, remedy="are its points in pixels?")
    return Shape(label, kind, points_xy, group_id, iscrowd, mask, where)


def rasterise(shape: Shape, size_hw: tuple[int, int], line_width: int = 0) -> dict[str, Any]:
    """The shape's pixels as compressed RLE, cut off at the border of the image.

    They are those of labelme's own conversion (labelme/utils/shape.py), which draws with Pillow: coordinates are cut
    to whole pixels, and all pixels on the outline are inside. DatasetError if a mask's PNG is damaged or not of its
    box's size.
    """
    if shape.kind != "mask":
        return crop_to_rle(*_draw(shape, size_hw, line_width), size_hw)
    crop, (left, top) = decode_mask(shape)
    first_x, first_y = max(0, -left), max(0, -top)
    is_inside = left < size_hw[1] and top < size_hw[0]
    crop = crop[first_y : size_hw[0] - top, first_x : size_hw[1] - left] if is_inside else crop[:0, :0]
    corner_xy = (left + first_x, top + first_y) if crop.size else (0, 0)
    return crop_to_rle(crop, corner_xy, size_hw)


def report_fault(on_issue: IssueHandler, shape: Shape, area_px: int, size_hw: tuple[int, int], where: str) -> None:
    """Report a shape of `area_px` pixels that is not in pixels, outside the image, or without area."""
    height, width = size_hw
    image = f"the image of {height} x {width} (height x width)"
    is_flat = shape.kind in ("polygon", "rectangle", "circle") and _compute_area(shape) < FLAT_PX
    beyond_px = np.concatenate([-shape.points_xy, shape.points_xy - (width, height)]).max()
    if shape.kind in ("polygon", "rectangle", "circle") and are_relative(shape.points_xy.tolist()):
        on_issue("coordinates-relative", DatasetError(RELATIVE, where=where))
    elif not area_px:
        problem = f"its mask has no pixel in {image}" if shape.kind == "mask" else f"it is outside {image}"
        problem = f"a {shape.kind} without area has no pixel" if is_flat else problem
        on_issue("segment-empty", DatasetError(problem, where=where))
    elif is_flat:
        problem = f"a {shape.kind} without area, whose outline has {area_px} pixels"
        on_issue("mask-flat", DatasetError(problem, where=where))
    elif shape.kind in ("polygon", "rectangle", "mask") and beyond_px > OUTSIDE_PX:
        on_issue("mask-outside", DatasetError(f"it reaches {beyond_px:g} pixels beyond {image}", where=where))


def decode_mask(shape: Shape) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The (h, w) pixels of a mask and its (left, top); DatasetError if its PNG is damaged or not of its box's size."""
    (left, top), (right, bottom) = shape.points_xy.tolist()
    size = (right - left + 1, bottom - top + 1)
    remedy = "draw the mask again"
    try:
        content = decode_base64(shape.mask)
        with open_pillow(BytesIO(content), shape.where, ["PNG"]) as image:
            is_of_size = all(abs(got - expected) < 1 for got, expected in zip(image.size, size, strict=True))
            if not is_of_size or image.mode not in MASK_MODES:
                expected, got = f"{size[0]:g} x {size[1]:g}", f"{image.width} x {image.height} of mode {image.mode}"
                problem = f"expected a mask of {expected} pixels (width x height) in one channel, got {got}"
                raise DatasetError(problem, where=shape.where, remedy=remedy)
            crop: NDArray[np.bool_] = np.asarray(image) != 0
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        problem = f"the mask is not a PNG in base64: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=shape.where, remedy=remedy) from None
    return crop, (int(left), int(top))


def decode_base64(text: str) -> bytes:
    """The bytes; ValueError for other characters. Some tools break the lines."""
    return base64.b64decode("".join(text.split()), validate=True)


def decode_crop(rle: dict[str, Any]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The mask in its tight box, (h, w) at (left, top): far fewer pixels to paint; (0, 0) for an empty mask."""
    left, top, width, height = (int(number) for number in coco_mask.toBbox(rle).tolist())
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask[top : top + height, left : left + width].astype(np.bool_), (left, top)


def build_entries(
    crop: NDArray[np.bool_], corner_xy: tuple[int, int], label: str, group_id: int, iscrowd: bool = False
) -> list[Entry]:
    """Entries of `shapes` that `rasterise` turns into exactly this (h, w) crop at (left, top); none for an empty crop.

    They are polygons through the pixels of the outlines, one per piece, joined by `group_id` if there are several. If a
    piece has a hole or is too thin for a polygon, one mask holds all.
    """
    if not crop.any():
        return []
    contours, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [contour[:, 0, :].astype(np.float64) for contour in contours]
    kind, group, mask = "polygon", group_id if len(polygons) > 1 else None, None
    if not _give_crop(polygons, crop):
        polygons = [np.array([[0, 0], [crop.shape[1] - 1, crop.shape[0] - 1]])]
        file = BytesIO()
        Image.fromarray(crop.astype(np.uint8)).save(file, "PNG")
        kind, group, mask = "mask", None, base64.b64encode(file.getvalue()).decode("ascii")
    return [
        {
            "label": label,
            "points": (points_xy + corner_xy).astype(float).tolist(),
            "group_id": group,
            "description": "",
            "shape_type": kind,
            "flags": {CROWD: True} if iscrowd else {},
            "mask": mask,
        }
        for points_xy in polygons
    ]


def _read_points(entry: Entry, kind: str, where: str) -> NDArray[np.float64]:
    points = json_fields.get_field(entry, "points", json_fields.LIST, where)
    lowest, highest = POINTS[kind]
    if len(points) < lowest or (highest is not None and len(points) > highest):
        expected = f"{lowest} or more" if highest is None else " to ".join(map(str, sorted({lowest, highest})))
        raise DatasetError(f"expected {expected} points of a {kind}, got {len(points)}", where=where)
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not json_fields.all_finite(point, MAX_COORDINATE):
            expected = f"every point to be [x, y] in pixels, at most {MAX_COORDINATE:g}"
            raise DatasetError(f"expected {expected}, got {reprlib.repr(point)}", where=where)
    return np.array(points, dtype=np.float64)


def _draw(shape: Shape, size_hw: tuple[int, int], line_width: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The pixels in the part of the shape's box that is in the image, and the (left, top) of that part."""
    centres = shape.points_xy[:1] if shape.kind == "circle" else shape.points_xy
    margin = _compute_radius(shape.points_xy) if shape.kind == "circle" else line_width
    (left, top), (right, bottom) = centres.min(axis=0) - margin, centres.max(axis=0) + margin
    left, right = (min(max(0, int(x)), size_hw[1]) for x in (left - 1, right + 2))
    top, bottom = (min(max(0, int(y)), size_hw[0]) for y in (top - 1, bottom + 2))
    if left >= right or top >= bottom:
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    # Pillow's rounding depends on the coordinates: they stay those of the image.
    canvas = Image.new("L", (right, bottom))
    draw = ImageDraw.Draw(canvas)
    points = [(x, y) for x, y in shape.points_xy.tolist()]
    if shape.kind == "polygon":
        draw.polygon(points, outline=1, fill=1)
    elif shape.kind == "rectangle":
        draw.rectangle([*map(min, *points), *map(max, *points)], outline=1, fill=1)
    elif shape.kind in ("line", "linestrip"):
        draw.line(points, fill=1, width=line_width)
    else:
        radius = margin if shape.kind == "circle" else line_width / 2
        x, y = points[0]
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    return np.asarray(canvas)[top:, left:] != 0, (left, top)


def _give_crop(polygons: list[NDArray[np.float64]], crop: NDArray[np.bool_]) -> bool:
    """Whether the polygons have areas, and their pixels are those of the crop."""
    drawn = np.zeros_like(crop)
    for points_xy in polygons:
        polygon = Shape("", "polygon", points_xy, None, False, "", "")
        if len(points_xy) < POINTS["polygon"][0] or _compute_area(polygon) < FLAT_PX:
            return False
        pixels, (left, top) = _draw(polygon, (crop.shape[0], crop.shape[1]), 0)
        drawn[top : top + pixels.shape[0], left : left + pixels.shape[1]] |= pixels
    return np.array_equal(drawn, crop)


def _compute_radius(points_xy: NDArray[np.float64]) -> float:
    """The radius of a circle, as labelme computes it."""
    (x, y), (edge_x, edge_y) = points_xy.tolist()
    return math.sqrt((x - edge_x) ** 2 + (y - edge_y) ** 2)


def _compute_area(shape: Shape) -> float:
    """The area inside the outline of a polygon, rectangle or circle, in pixels."""
    if shape.kind == "circle":
        return math.pi * _compute_radius(shape.points_xy) ** 2
    if shape.kind == "rectangle":
        return float(np.abs(np.subtract(*shape.points_xy)).prod())
    x, y = shape.points_xy.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
