"""YOLO's label files: a line for each object, its class and the corners of its outline as shares of the size."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segkit.formats.coco import find_mask_fault
from segkit.formats.outlines import Points
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes

TOLERANCE = 0.01  # beyond 0..1, as Ultralytics' check of labels allows
BOX_NUMBERS = (4, 5)  # centre, width and height; and perhaps a score
MIN_NUMBERS = 6  # three corners
DIGITS = 10  # of a written share
PIXEL_DIGITS = 6  # of a coordinate in pixels: what is written and read is equal to these digits
CLASS = re.compile(r"[0-9]{1,9}(\.0*)?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Outline:
    """One object.

    Attributes:
        category_id: its class.
        polygon: x, y, x, y, ... in pixels.
        line: number of the line in the file, from 1.
    """

    category_id: int
    polygon: list[float]
    line: int


def read_outlines(path: Path, size_hw: tuple[int, int], classes: Container[int]) -> list[Outline]:
    """Read a label file; DatasetError, with its code, at the first line that is invalid or has only a box."""
    outlines = []
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", "replace").splitlines(), 1):
        if line.strip():
            outlines.append(_parse_line(line.split(), size_hw, classes, f"{path}, line {number}", number))
    return outlines


def format_outline(index: int, points_xy: Points, size_hw: tuple[int, int]) -> str:
    """The line of an object, with the index of its class."""
    shares = (points_xy / size_hw[::-1]).ravel().tolist()
    return " ".join([str(index), *(f"{share:.{DIGITS}f}".rstrip("0").rstrip(".") for share in shares)])


def _parse_line(
    words: Sequence[str], size_hw: tuple[int, int], classes: Container[int], where: str, number: int
) -> Outline:
    code: Any = "annotation-unreadable"
    if not CLASS.fullmatch(words[0]):
        problem = f"expected the number of a class first, got {reprlib.repr(words[0])}"
        raise DatasetError(problem, where=where, code=code)
    category_id = int(words[0].split(".")[0])
    if category_id not in classes:
        remedy = "name it in data.yaml"
        raise DatasetError(f"the class {category_id} has no name", where=where, remedy=remedy, code="category-unknown")
    if len(words) - 1 in BOX_NUMBERS:
        problem = "a box without outline, as for detection"
        remedy = "export the dataset for segmentation, with polygons"
        raise DatasetError(problem, where=where, remedy=remedy, code="outline-missing")
    try:
        shares = np.array(words[1:], dtype=np.float64)
    except ValueError:
        raise DatasetError("expected numbers after the class", where=where, code=code) from None
    if len(shares) < MIN_NUMBERS or len(shares) % 2:
        problem = f"expected three or more pairs of x and y after the class, got {len(shares)} numbers"
        raise DatasetError(problem, where=where, remedy="export polygons, without scores", code=code)
    if not (np.abs(shares - 0.5) <= 0.5 + TOLERANCE).all():
        farthest = shares[np.abs(shares - 0.5).argmax()]
        remedy = "divide x by the width and y by the height, if they are in pixels"
        raise DatasetError(f"expected x and y in 0..1, got {farthest:g}", where=where, remedy=remedy, code=code)
    polygon = np.round(shares.reshape(-1, 2) * size_hw[::-1], PIXEL_DIGITS).ravel().tolist()
    if fault := find_mask_fault([polygon], None):
        raise DatasetError(fault, where=where, code=code)
    return Outline(category_id, polygon, number)
