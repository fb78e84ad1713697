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
from PIL import Image
from pycocotools import mask as coco_mask

from segkit.formats.coco.masks import MAX_COORDINATE, MAX_OUTLINE_PX, is_too_long
from segkit.structures import crop_to_rle, rle_to_mask, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
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
}
WITHOUT_AREA = {"line", "linestrip", "point", "points"}
MASK_MODES = {"1", "L", "P", "I", "I;16"}  # Pillow's, of one channel
CROWD = "iscrowd"  # the flag of a crowd


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape with an area.

    Attributes:
        label: Name of the class.
        kind: polygon, circle or mask.
        points_xy: (N, 2) float64 pixels; whole numbers are between pixels, but a mask's two points are pixels.
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


def parse_shape(entry: object, where: str) -> Shape | str:
    """Check an entry of `shapes`; a point or line, which has no pixels, gives a line that says so.

    DatasetError if the entry is invalid. Masks are not decoded.
    """
    if not isinstance(entry, dict):
        raise DatasetError(f"expected an object, got {reprlib.repr(entry)}", where=where)
    kind = entry.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in {*POINTS, *WITHOUT_AREA}:
        expected = f"a shape_type among {', '.join([*POINTS, *sorted(WITHOUT_AREA)])}"
        problem = f"expected {expected}, got {reprlib.repr(kind)}"
        raise DatasetError(problem, where=where, remedy="draw it as a polygon")
    if kind in WITHOUT_AREA:
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
    if kind == "rectangle" and len(points_xy) == 2:
        (left, top), (right, bottom) = points_xy.tolist()
        points_xy = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind not in ("circle", "mask"):
        kind = "polygon"
        if is_too_long(points_xy.ravel().tolist()):
            problem = f"expected an outline of at most {MAX_OUTLINE_PX:g} pixels, got a longer one"
            raise DatasetError(problem, where=where, remedy="are its points in pixels?")
    return Shape(label, kind, points_xy, group_id, iscrowd, mask, where)


def rasterise(shape: Shape, size_hw: tuple[int, int]) -> dict[str, Any]:
    """The shape's pixels as compressed RLE, cut off at the border of the image.

    Polygons and rectangles are rasterised by pycocotools, as COCO's are; labelme itself adds the pixels that the
    outline touches. A circle has the pixels whose centres are inside or on it. DatasetError if a mask's PNG is damaged
    or not of its box's size.
    """
    if shape.kind == "polygon":
        return segmentation_to_rle([shape.points_xy.ravel().tolist()], size_hw)
    crop, (left, top) = _draw_circle(shape.points_xy, size_hw) if shape.kind == "circle" else decode_mask(shape)
    first_x, first_y = max(0, -left), max(0, -top)
    is_inside = left < size_hw[1] and top < size_hw[0]
    crop = crop[first_y : size_hw[0] - top, first_x : size_hw[1] - left] if is_inside else crop[:0, :0]
    corner_xy = (left + first_x, top + first_y) if crop.size else (0, 0)
    return crop_to_rle(crop, corner_xy, size_hw)


def decode_mask(shape: Shape) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The (h, w) pixels of a mask and its (left, top); DatasetError if its PNG is damaged or not of its box's size."""
    (left, top), (right, bottom) = shape.points_xy.tolist()
    size = (round(right - left) + 1, round(bottom - top) + 1)
    remedy = "draw the mask again"
    try:
        content = base64.b64decode("".join(shape.mask.split()), validate=True)  # some tools break its lines
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if image.size != size or image.mode not in MASK_MODES:
                expected, got = f"{size[0]} x {size[1]}", f"{image.width} x {image.height} of mode {image.mode}"
                problem = f"expected a mask of {expected} pixels (width x height) in one channel, got {got}"
                raise DatasetError(problem, where=shape.where, remedy=remedy)
            crop: NDArray[np.bool_] = np.asarray(image) != 0
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        problem = f"the mask is not a PNG in base64: {' '.join(str(error).split())}"
        raise DatasetError(problem, where=shape.where, remedy=remedy) from None
    return crop, (math.floor(left), math.floor(top))


def decode_crop(rle: dict[str, Any]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The mask in its tight box, (h, w) at (left, top): far fewer pixels to paint; (0, 0) for an empty mask."""
    left, top, width, height = (int(number) for number in coco_mask.toBbox(rle).tolist())
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask[top : top + height, left : left + width].astype(np.bool_), (left, top)


def build_entries(
    crop: NDArray[np.bool_], corner_xy: tuple[int, int], label: str, group_id: int, iscrowd: bool = False
) -> list[Entry]:
    """Entries of `shapes` that `rasterise` turns into exactly this (h, w) crop at (left, top); none for an empty crop.

    They are polygons along the edges of the pixels, one per piece, joined by `group_id` if there are several. If a
    piece has a hole, one mask holds all.
    """
    if not crop.any():
        return []
    polygons = _find_outlines(crop)
    outlines = [points_xy.ravel().astype(float).tolist() for points_xy in polygons]
    kind, group, mask = "polygon", group_id if len(polygons) > 1 else None, None
    if not np.array_equal(rle_to_mask(segmentation_to_rle(outlines, (crop.shape[0], crop.shape[1]))), crop):
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


def _draw_circle(points_xy: NDArray[np.float64], size_hw: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The circle in the part of its box that is in the image, and the (left, top) of that part."""
    (x, y), (edge_x, edge_y) = points_xy.tolist()
    squared = (edge_x - x) ** 2 + (edge_y - y) ** 2
    radius = math.sqrt(squared)
    left, top = max(0, math.floor(x - radius)), max(0, math.floor(y - radius))
    columns = np.arange(left, min(size_hw[1], math.ceil(x + radius))) + 0.5
    rows = np.arange(top, min(size_hw[0], math.ceil(y + radius))) + 0.5
    return (columns[None] - x) ** 2 + (rows[:, None] - y) ** 2 <= squared, (left, top)


def _find_outlines(crop: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """(N, 2) outer outline of every piece along the edges of its pixels.

    OpenCV's contours run through the centres of pixels. In a crop enlarged twice, pixel x is 2 x and 2 x + 1. So
    (c + 1) // 2 of a contour's coordinate c is the pixel's edge x or x + 1, and a cut corner becomes one point.
    """
    enlarged = crop.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    edges = [(contour[:, 0, :].astype(np.int64) + 1) // 2 for contour in contours]
    return [xy[(xy != np.roll(xy, 1, axis=0)).any(axis=1)] for xy in edges]
