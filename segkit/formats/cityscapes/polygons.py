"""Cityscapes' polygon JSON, *_gtFine_polygons.json, drawn as the PNG of instance ids is drawn from it."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segkit.formats.cityscapes import files as cityscapes
from segkit.formats.cityscapes.files import INSTANCES_PER_LABEL, LABELS, Label
from segkit.structures import PanopticSegmentation
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

POLYGONS_SUFFIX = "_gtFine_polygons.json"
GROUP_SUFFIX = "group"  # cargroup: several cars that could not be told apart, a crowd
MOST_BYTES = 2**26  # of the file of one image; Cityscapes' own have less than 2**20
LARGEST_COORDINATE = 2**20  # pixels: beyond it ImageDraw's integers may overflow
LEAST_POINTS = 2  # ImageDraw's rule

Point: TypeAlias = tuple[float, float]

_LABEL_OF = {label.name: label for label in LABELS}


def read_polygon_segmentation(
    polygons_path: str | Path, size_hw: tuple[int, int] | None = None
) -> PanopticSegmentation:
    """The segments of one *_gtFine_polygons.json, as `cityscapes.read_segmentation` reads them from the drawn PNG.

    Raises DatasetError where the file is missing, damaged, absurdly large, not of `size_hw` pixels, or has an unknown
    label.
    """
    path = Path(polygons_path)
    return cityscapes.build_segmentation(draw_polygons(path, size_hw), path)


def draw_polygons(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """(H, W) int32 values of the *_instanceIds.png: later objects lie on top (preparation/json2instanceImg.py).

    Instances are numbered by label in the order of the objects, hidden ones too; deleted objects and labels without an
    id are not drawn. Raises DatasetError as `read_polygon_segmentation` does.
    """
    content = _load(path)
    canvas = Image.new("I", _size_hw(content, size_hw, path)[::-1], LABELS[0].label_id)
    drawer = ImageDraw.Draw(canvas)
    numbered: Counter[str] = Counter()
    for index, entry in enumerate(json_fields.get_table(content, "objects", path)):
        where = f"{path}, object {index}"
        if json_fields.get_flag(entry, "deleted", where):
            continue
        label, isgroup = _label_of(entry, where)
        points = _points_of(entry, where)
        value = label.label_id
        if label.has_instances and not isgroup:
            value = value * INSTANCES_PER_LABEL + numbered[label.name]
            numbered[label.name] += 1
            if numbered[label.name] > INSTANCES_PER_LABEL:
                raise DatasetError(f"expected at most {INSTANCES_PER_LABEL} instances of {label.name}", where=where)
        if value >= 0:
            drawer.polygon(points, fill=value)
    return np.array(canvas, dtype=np.int32)


def _load(path: Path) -> Entry:
    try:
        n_bytes = os.path.getsize(path)
    except (OSError, ValueError):
        n_bytes = 0  # `load` says what is wrong
    if n_bytes > MOST_BYTES:
        problem = f"expected the polygons of one image in at most {MOST_BYTES} bytes, got {n_bytes}"
        raise DatasetError(problem, where=path, remedy="is it the right file?")
    return json_fields.load_object(path)


def _size_hw(content: Entry, expected_hw: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    height, width = (
        json_fields.get_field(content, key, json_fields.INTEGER, path) for key in ("imgHeight", "imgWidth")
    )
    if expected_hw is not None and (height, width) != tuple(expected_hw):
        expected = f"{expected_hw[0]} x {expected_hw[1]} pixels (height x width)"
        raise DatasetError(f"expected {expected}, got imgHeight {height} and imgWidth {width}", where=path)
    # What Pillow refuses to decode as too large is not drawn either.
    most_px = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else float("inf")
    if min(height, width) < 1 or height * width > most_px:
        problem = f"expected an image of 1 to {most_px} pixels, got imgHeight {height} and imgWidth {width}"
        raise DatasetError(problem, where=path)
    return height, width


def _label_of(entry: Entry, where: str) -> tuple[Label, bool]:
    """The object's label, and whether it stands for a group; polegroup is a label of its own."""
    name: str = json_fields.get_field(entry, "label", json_fields.TEXT, where)
    if name in _LABEL_OF:
        return _LABEL_OF[name], False
    single = name.removesuffix(GROUP_SUFFIX)
    if single not in _LABEL_OF:
        problem = f"expected a label of Cityscapes, or one and {GROUP_SUFFIX!r}, got {reprlib.repr(name)}"
        raise DatasetError(problem, where=where, remedy="rename the label")
    return _LABEL_OF[single], True


def _points_of(entry: Entry, where: str) -> list[Point]:
    polygon = json_fields.get_field(entry, "polygon", json_fields.LIST, where)
    sound = len(polygon) >= LEAST_POINTS and all(
        type(point) is list and len(point) == 2 and json_fields.all_finite(point, LARGEST_COORDINATE)
        for point in polygon
    )
    if not sound:
        expected = f"`polygon` to be at least {LEAST_POINTS} points [x, y] within {LARGEST_COORDINATE} pixels"
        raise DatasetError(f"expected {expected}, got {reprlib.repr(polygon)}", where=where)
    return [(x, y) for x, y in polygon]
