"""Colours of VOC's PNGs: the palette, and labelmap.txt of CVAT and Datumaro, in whose PNGs colours stand for labels.

A line of labelmap.txt is `name:red,green,blue:parts:actions`. Of SegmentationObject each colour is one object.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.structures import rgb_to_ids
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes
from segkit.utils.text import abbreviate

LABEL_MAP_FILE = "labelmap.txt"
MAX_BYTES = 2**20  # of labelmap.txt
BACKGROUND_NAMES = ("_background_", "background")
IGNORED_NAME = "ignored"  # Datumaro's class of void
BACKGROUND, VOID_LABEL = 0, 255
MAX_LABEL = VOID_LABEL - 1
MAX_COLORS = 10_000  # of the objects of an image; a PNG with more is another kind of image

Labels: TypeAlias = NDArray[np.uint8]
Color: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class LabelMap:
    """The content of labelmap.txt.

    Attributes:
        path: the file.
        colors: class name -> (red, green, blue), in the order of the labels from 1 on, without background and void.
        label_by_color: R + 256 G + 65536 B -> label.
    """

    path: Path
    colors: dict[str, Color]
    label_by_color: dict[int, int]


def compute_color_map(count: int = 256) -> NDArray[np.uint8]:
    """(count, 3) uint8 RGB of the labels, as VOCcode/VOClabelcolormap.m computes them.

    The label's bits, from the lowest, go to red, green, blue, red, ..., from the highest bit of these down.
    """
    labels = np.arange(count)
    colors = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(24):
        colors[:, bit % 3] |= ((labels >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


def read_label_map(root: Path) -> LabelMap | None:
    """Read labelmap.txt; None without the file.

    A class without colour has VOC's colour of its line. DatasetError if a line is invalid, or two classes share a name
    or colour.
    """
    path = root / LABEL_MAP_FILE
    if not os.path.isfile(path):
        return None
    lines = read_bytes(path, MAX_BYTES).decode("utf-8-sig", "surrogateescape").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    palette = [(red, green, blue) for red, green, blue in compute_color_map().tolist()]
    label_by_color = {_pack(palette[BACKGROUND]): BACKGROUND, _pack(palette[VOID_LABEL]): VOID_LABEL}
    colors: dict[str, Color] = {}
    for number, entry in enumerate(entries):
        name, color = _parse_line(entry, palette[min(number, MAX_LABEL)], path)
        label = BACKGROUND if name in BACKGROUND_NAMES else VOID_LABEL if name == IGNORED_NAME else len(colors) + 1
        if name in colors or label_by_color.get(_pack(color), label) != label:
            raise DatasetError(f"expected a name and a colour of its own for each class, got {entry!r}", where=path)
        label_by_color[_pack(color)] = label
        if name not in (*BACKGROUND_NAMES, IGNORED_NAME):
            colors[name] = color
    return LabelMap(path, colors, label_by_color)


def read_class_labels(path: Path, label_map: LabelMap) -> png.Labels:
    """(H, W) labels of a PNG of classes, by its colours; of a greyscale PNG by its values.

    DatasetError if the PNG is damaged, or has a colour of no class.
    """
    colors = _read_colors(path)
    if colors is None:
        return png.read_labels(path)
    values, indices = np.unique(colors, return_inverse=True)
    unknown = [_unpack(color) for color in values.tolist() if color not in label_map.label_by_color]
    if unknown:
        problem = f"expected the colours of {label_map.path.name}, got {abbreviate(unknown)}"
        raise DatasetError(problem, where=path, remedy=f"add their classes to {label_map.path.name}")
    by_value: Labels = np.array([label_map.label_by_color[color] for color in values.tolist()], dtype=np.uint8)
    return by_value[indices].reshape(colors.shape)


def read_object_labels(path: Path) -> png.Labels:
    """(H, W) labels of a PNG of objects, numbered from 1 on by VOC's palette, then by the value of other colours.

    The number of void is left out. DatasetError if the PNG is damaged, or has more than MAX_COLORS colours.
    """
    colors = _read_colors(path)
    if colors is None:
        return png.read_labels(path)
    palette = rgb_to_ids(compute_color_map()[None])[0].tolist()
    labels = {color: label for label, color in enumerate(palette)}
    values, indices = np.unique(colors, return_inverse=True)
    objects = sorted(
        (color for color in values.tolist() if labels.get(color) not in (BACKGROUND, VOID_LABEL)),
        key=lambda color: (labels.get(color, MAX_LABEL), color),
    )
    if len(objects) > MAX_COLORS:
        problem = f"expected a colour for each object, got {len(objects)} colours"
        raise DatasetError(problem, where=path, remedy="is it a PNG of objects? Export the dataset as COCO instances")
    numbers = {palette[BACKGROUND]: BACKGROUND, palette[VOID_LABEL]: VOID_LABEL}
    numbers |= {color: number + (number >= VOID_LABEL) for number, color in enumerate(objects, 1)}
    by_value: png.Labels = np.array([numbers[color] for color in values.tolist()], dtype=np.uint16)
    return by_value[indices].reshape(colors.shape)


def _parse_line(entry: str, default: Color, path: Path) -> tuple[str, Color]:
    """Name and colour; names may have colons."""
    parts = entry.rsplit(":", 3)
    channels = parts[1].split(",") if len(parts) == 4 and parts[1].strip() else [*map(str, default)]
    numbers = [int(channel) for channel in map(str.strip, channels) if channel.isdecimal() and int(channel) < 256]
    if len(parts) != 4 or not parts[0].strip() or len(numbers) != 3 or len(channels) != 3:
        raise DatasetError(f"expected lines of name:red,green,blue:parts:actions, got {entry!r}", where=path)
    return parts[0].strip(), (numbers[0], numbers[1], numbers[2])


def _pack(color: Color) -> int:
    return int(rgb_to_ids(np.array([[color]], dtype=np.uint8))[0, 0])


def _unpack(color: int) -> Color:
    return color % 256, color // 256 % 256, color // 65536


def _read_colors(path: Path) -> NDArray[np.int32] | None:
    """(H, W) R + 256 G + 65536 B; None of a greyscale PNG."""
    return None if png.read_header(path).kind.startswith("greyscale") else png.read_id_runs(path).to_map()
