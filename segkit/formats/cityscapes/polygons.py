"""Cityscapes' polygon JSON, *_gtFine_polygons.json, drawn to the instance ids that cityscapesscripts draws from it."""

from __future__ import annotations

import reprlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segkit.formats.cityscapes.label_pngs import INSTANCES_PER_LABEL, LABELS, Label, build_segmentation
from segkit.formats.pixel_limit import check_pixels
from segkit.structures import PanopticSegmentation
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_file_size
from segkit.utils.json_fields import Entry

POLYGONS_SUFFIX = "_gtFine_polygons.json"
GROUP_SUFFIX = "group"  # cargroup: several cars that the annotator could not separate, a crowd
MAX_BYTES = 2**26  # of the file of one image; Cityscapes' own files have less than 2**20
MAX_COORDINATE = 2**20  # pixels; larger ones may overflow ImageDraw's integers
MIN_POINTS = 2  # of a polygon, ImageDraw's rule
LABEL_BY_NAME = {label.name: label for label in LABELS}


def read_polygon_segmentation(
    polygons_path: str | Path, size_hw: tuple[int, int] | None = None
) -> PanopticSegmentation:
    """Read the segments of one *_gtFine_polygons.json.

    Args:
        polygons_path: JSON with imgHeight, imgWidth and objects.
        size_hw: Expected height and width in pixels; None accepts any size.

    Returns:
        The segmentation that `cityscapes.read_segmentation` gives for the drawn PNG.

    Raises:
        DatasetError: The file is missing, damaged, unreasonably large, of another size, or has an unknown label.
    """
    path = Path(polygons_path)
    return build_segmentation(draw_polygons(path, size_hw), path)


def draw_polygons(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """(H, W) int32 values of the *_instanceIds.png; later objects occlude earlier ones.

    Instances are numbered by label in the order of the objects, occluded ones included. Deleted objects and labels
    without an id are not drawn (preparation/json2instanceImg.py). DatasetError as `read_polygon_segmentation`.
    """
    check_file_size(path, MAX_BYTES, "is it the polygon file of one image?")
    content = json_fields.load_object(path)
    canvas = Image.new("I", _read_size(content, size_hw, path)[::-1], LABELS[0].label_id)
    drawer = ImageDraw.Draw(canvas)
    instance_counts: Counter[str] = Counter()
    for index, entry in enumerate(json_fields.get_table(content, "objects", path)):
        where = f"{path}, object {index}"
        if json_fields.get_flag(entry, "deleted", where):
            continue
        label, is_group = _read_label(entry, where)
        points = _read_points(entry, where)
        value = label.label_id
        if label.has_instances and not is_group:
            value = value * INSTANCES_PER_LABEL + instance_counts[label.name]
            instance_counts[label.name] += 1
            if instance_counts[label.name] > INSTANCES_PER_LABEL:
                raise DatasetError(f"expected at most {INSTANCES_PER_LABEL} instances of {label.name}", where=where)
        if value >= 0:
            drawer.polygon(points, fill=value)
    return np.array(canvas, dtype=np.int32)


def _read_size(content: Entry, expected_hw: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    keys = ("imgHeight", "imgWidth")
    height, width = (json_fields.get_field(content, key, json_fields.INTEGER, path) for key in keys)
    got = f"imgHeight {height} and imgWidth {width}"
    if expected_hw is not None and (height, width) != tuple(expected_hw):
        expected = f"{expected_hw[0]} x {expected_hw[1]} pixels (height x width)"
        raise DatasetError(f"expected {expected}, got {got}", where=path)
    if min(height, width) < 1:
        raise DatasetError(f"expected an image of at least 1 pixel, got {got}", where=path)
    check_pixels((height, width), path)  # an image that is too large to be decoded is not drawn either
    return height, width


def _read_label(entry: Entry, where: str) -> tuple[Label, bool]:
    """The object's label, and whether it is a group of instances; polegroup is a label of its own."""
    name: str = json_fields.get_field(entry, "label", json_fields.TEXT, where)
    single = name if name in LABEL_BY_NAME else name.removesuffix(GROUP_SUFFIX)
    if single not in LABEL_BY_NAME:
        problem = f"expected a label of Cityscapes, or one and {GROUP_SUFFIX!r}, got {reprlib.repr(name)}"
        raise DatasetError(problem, where=where, remedy="rename the label")
    return LABEL_BY_NAME[single], single != name


def _read_points(entry: Entry, where: str) -> list[tuple[float, float]]:
    polygon = json_fields.get_field(entry, "polygon", json_fields.LIST, where)
    are_points = all(type(p) is list and len(p) == 2 and json_fields.all_finite(p, MAX_COORDINATE) for p in polygon)
    if len(polygon) < MIN_POINTS or not are_points:
        expected = f"`polygon` to be at least {MIN_POINTS} points [x, y] within {MAX_COORDINATE} pixels"
        raise DatasetError(f"expected {expected}, got {reprlib.repr(polygon)}", where=where)
    return [(x, y) for x, y in polygon]
