"""Cityscapes' instance results: a text file per image, one line and one binary PNG per instance.

The layout that the benchmark takes (github.com/mcordts/cityscapesScripts, evalInstanceLevelSemanticLabeling.py): a file
`<image_id>*.txt` anywhere below the results' folder; its lines are `mask.png label_id confidence`, parted by one space,
the mask's path relative to the file. Category ids are label ids.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from operator import itemgetter
from os import walk
from os.path import abspath, isabs
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import png
from segkit.formats.cityscapes.files import CATEGORIES, LABELS, LAST_LABEL_ID
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes, replacing
from segkit.utils.text import abbreviate

NOT_EVALUATED = {x.label_id: x.name for x in LABELS if x.has_instances and x.ignored}  # caravan, trailer
PLAIN_NAME = re.compile(r"\w[\w.-]*")  # without a space, which would end the path in a line
LINE = "`mask.png label_id confidence`, parted by one space each"


class ResultLine(NamedTuple):
    """One predicted instance: where its mask is, its category_id, its finite score; where: the file and the line."""

    mask_path: Path
    category_id: int
    score: float
    where: str


class ResultFiles:
    """The text files below a folder, listed once; DatasetError where the folder is missing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DatasetError("no such folder of results", where=folder, remedy="check the path")
        files = ((name, Path(root, name)) for root, _, names in walk(folder) for name in names)
        self._found = sorted((name, path) for name, path in files if name.endswith(".txt"))

    def find(self, image_id: str) -> Path:
        """The image's file, named `<image_id>*.txt`; DatasetError where there is none, or more than one."""
        first = bisect_left(self._found, image_id, key=itemgetter(0))
        paths = [path for _, path in takewhile(lambda found: found[0].startswith(image_id), self._found[first:])]
        if len(paths) == 1:
            return paths[0]
        expected = f"expected one file {image_id}*.txt"
        if not paths:
            remedy = "an image without instances needs an empty one"
            raise DatasetError(f"{expected}, found none", where=self.folder, remedy=remedy)
        names = abbreviate(str(path.relative_to(self.folder)) for path in paths)
        raise DatasetError(f"{expected}, found {len(paths)}: {names}", where=self.folder, remedy="keep one of them")


def read_result_lines(path: Path, root: Path, on_issue: Callable[[DatasetError], None]) -> list[ResultLine]:
    """The instances of one text file, in its order; those of `NOT_EVALUATED` labels are left out, as by the reference.

    root: the results' folder, which no mask may be outside of. A line gives a DatasetError to tell, and no
    instance, where it is no `LINE` (an empty line is none), the path is absolute, leaves the root or was there before,
    the label is none or has no instances, or the confidence is not finite. DatasetError where the file is missing or no
    text.
    """
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"expected text in UTF-8: {error}", where=path) from None
    found: dict[Path, ResultLine] = {}
    for number, line in enumerate(lines, 1):
        try:
            read = _read_line(line, path, root, f"{path}, line {number}")
            if read.mask_path in found:
                first = found[read.mask_path].where.removeprefix(f"{path}, ")
                raise DatasetError(f"expected each mask once, got that of {first} again", where=read.where)
        except DatasetError as error:
            on_issue(error)
        else:
            found[read.mask_path] = read
    return [read for read in found.values() if read.category_id not in NOT_EVALUATED]


def read_result_mask(path: Path, size_hw: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The mask's tight box as an (h, w) bool crop, and its corner (left, top); 0 x 0 at (0, 0) where it is empty.

    Every pixel whose grey value is not 0 belongs to the mask. DatasetError where the file is missing, cut off, no PNG
    of one channel and at most 8 bits, or not of `size_hw` pixels.
    """
    image = png.open_image(path, size_hw, {"greyscale", "palette"}, (1, 2, 4, 8)).convert("L")
    box = image.getbbox()
    if box is None:
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    return np.asarray(image.crop(box)) != 0, box[:2]


def write_results(
    folder: str | Path,
    image_id: str,
    size_hw: tuple[int, int],
    instances: Iterable[tuple[int, float, NDArray[np.bool_], Sequence[int]]],
) -> Path:
    """Writes `<image_id>_pred.txt`, and the masks as `<image_id>/<number>.png`, of 1 bit and size_hw pixels each.

    instances: (category_id, score, crop, corner_xy), the crop an (h, w) bool array that lies at (left, top); one
    without pixels is left out. Without instances the file is empty. Scores are written so that they read back the same.
    The text file comes last, whole or not at all. Returns its path. Raises ValueError where image_id cannot be part of
    a line (only letters, digits, "_", "-" and "."), a category_id is of no thing or a score is not finite.
    """
    if not PLAIN_NAME.fullmatch(image_id):
        raise ValueError(f"image_id must consist of letters, digits, '_', '-' and '.', got {image_id!r}")
    path = Path(folder, f"{image_id}_pred.txt")
    lines = []
    for number, (category_id, score, crop, corner_xy) in enumerate(instances):
        if category_id not in CATEGORIES.thing_contiguous_ids or not math.isfinite(score):
            raise ValueError(f"instance {number} must have a thing's id and a finite score, got {category_id}, {score}")
        if crop.any():
            mask_name = f"{image_id}/{number:03d}.png"
            _write_mask(path.with_name(image_id) / f"{number:03d}.png", size_hw, crop, corner_xy)
            lines.append(f"{mask_name} {category_id} {float(score)!r}\n")
    with replacing(path) as neighbour:
        neighbour.write_text("".join(lines), encoding="utf-8")
    return path


def _read_line(line: str, path: Path, root: Path, where: str) -> ResultLine:
    parts = line.split(" ")
    if len(parts) != 3:
        raise DatasetError(f"expected {LINE}, got {line!r}", where=where)
    mask_path = Path(abspath(path.parent / parts[0]))
    if isabs(parts[0]) or not mask_path.is_relative_to(abspath(root)):
        raise DatasetError(f"expected a relative path to a mask below {root}, got {parts[0]!r}", where=where)
    label, score = _number(parts[1], "label id", where), _number(parts[2], "confidence", where)
    if label not in CATEGORIES.thing_contiguous_ids and label not in NOT_EVALUATED:
        known = [*CATEGORIES.thing_contiguous_ids]
        problem = "has no instances" if label in range(LAST_LABEL_ID + 1) else "is no label"
        raise DatasetError(f"expected a label id out of {known}, got {parts[1]}, which {problem}", where=where)
    return ResultLine(mask_path, int(label), score, where)


def _number(text: str, what: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DatasetError(f"expected a finite {what}, got {text!r}", where=where)
    return number


def _write_mask(path: Path, size_hw: tuple[int, int], crop: NDArray[np.bool_], corner_xy: Sequence[int]) -> None:
    mask = np.zeros(size_hw, dtype=np.bool_)
    left, top = corner_xy
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    with replacing(path) as neighbour:  # one bit a pixel: a fraction of the time and size of eight
        Image.fromarray(mask).save(neighbour, "PNG")
