"""Pascal VOC's tree: its folders, class names, label colours and image sets.

Everingham et al. 2010, The Pascal Visual Object Classes (VOC) Challenge, and the VOC2012 development kit. Trees of
other tools, such as labelme, name other classes in class_names.txt: `_background_`, then one class per line.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.structures import Category, CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes, replacing
from segkit.utils.issues import IssueHandler
from segkit.utils.json_fields import check_inside
from segkit.utils.text import abbreviate

IMAGES, CLASS_MAPS, OBJECT_MAPS = "JPEGImages", "SegmentationClass", "SegmentationObject"  # folders
IMAGE_SETS = "ImageSets/Segmentation"
TREE = f"give the folder that holds {IMAGES}, {CLASS_MAPS}, {OBJECT_MAPS} and {IMAGE_SETS}, such as VOCdevkit/VOC2012"
NAMES_FILE = "class_names.txt"
BACKGROUND_NAMES = ("_background_", "background")

# VOCcode/VOCinit.m: the index in this order, from 1, is the label.
CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND, VOID_LABEL = 0, 255
MAX_LABEL = VOID_LABEL - 1

Labels = NDArray[np.uint8]


def compute_color_map() -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB of the labels, as VOCcode/VOClabelcolormap.m computes them.

    The label's bits, from the lowest, go to red, green, blue, red, ..., from the highest bit of these down.
    """
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= ((labels >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


def build_categories(names: Sequence[str], isthing: bool, where: object) -> CategorySet:
    """Categories 1, 2, ... of these names, all things or all stuff, and the stuff category 0, "background".

    DatasetError for no or more than 254 names, repeated names, a background among them, or a name that is not one line.
    """
    is_list = isinstance(names, (list, tuple)) and all(isinstance(n, str) and split_lines(n) == [n] for n in names)
    if not is_list:
        raise DatasetError(f"expected a list of class names, each one line, got {reprlib.repr(names)}", where=where)
    if not 1 <= len(names) <= MAX_LABEL:
        raise DatasetError(f"expected 1 to {MAX_LABEL} classes, got {len(names)}", where=where)
    if len({*names}) < len(names) or {*names} & {*BACKGROUND_NAMES}:
        problem = f"expected distinct names, and no background, got {abbreviate(names)}"
        raise DatasetError(problem, where=where, remedy="leave the background out: it is always label 0")
    colors = [(red, green, blue) for red, green, blue in compute_color_map().tolist()]
    classes = [Category(label, name, isthing, colors[label]) for label, name in enumerate(names, 1)]
    return CategorySet([Category(BACKGROUND, "background", False, colors[BACKGROUND]), *classes], where)


def read_names(root: Path) -> tuple[str, ...]:
    """The class names in class_names.txt, from label 1 on; VOC's own names without that file."""
    path = root / NAMES_FILE
    if not os.path.lexists(path):
        return CLASS_NAMES
    first, *names = split_lines(_read_text(path)) or [""]
    if first not in BACKGROUND_NAMES:
        expected = f"{BACKGROUND_NAMES[0]!r} in the first line"
        raise DatasetError(f"expected {expected}, got {first!r}", where=path, remedy="or give the classes yourself")
    return tuple(names)


def get_set_path(root: Path, split: str) -> Path:
    """The path of the image set; DatasetError for a name that leaves the folder."""
    check_inside(str(split), "split", root / IMAGE_SETS)  # YAML may give a number
    return root / IMAGE_SETS / f"{split}.txt"


def read_set(path: Path, on_issue: IssueHandler) -> list[str]:
    """The image ids in an image set, in its order.

    Repeated ids, and ids that leave the folder, are reported and left out. DatasetError if the set is missing or empty.
    """
    if not os.path.isfile(path):
        sets = sorted(other.stem for other in path.parent.glob("*.txt"))
        remedy = f"the sets are {', '.join(sets)}" if sets else TREE
        raise DatasetError("no such image set", where=path, remedy=remedy)
    lines = split_lines(_read_text(path))
    if not lines:
        raise DatasetError("expected one image id per line, got none", where=path)
    image_ids: dict[str, None] = {}
    for image_id in lines:
        code = "name-outside"
        try:
            check_inside(image_id, "image id", path)
            code = "image-id-twice"
            if image_id in image_ids:
                raise DatasetError(f"expected distinct image ids, got {image_id!r} twice", where=path)
            image_ids[image_id] = None
        except DatasetError as error:
            on_issue(code, error)
    return [*image_ids]


def split_lines(text: str) -> list[str]:
    """The lines, whatever ends them, stripped of blanks; blank lines are left out."""
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the lines, whole or not at all, with names encoded as in the file system."""
    with replacing(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def is_line(text: str) -> bool:
    """Whether `write_lines` and `split_lines` give the text back as one line."""
    try:
        return bool(text.encode("utf-8", "surrogateescape")) and split_lines(text) == [text]
    except UnicodeEncodeError:
        return False


def _read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8-sig", "surrogateescape")  # as Python decodes the names of files
