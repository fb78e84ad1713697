"""Cityscapes' instance results: a text file per image, and one line and one binary PNG per instance.

This is the format of the benchmark (evaluation/evalInstanceLevelSemanticLabeling.py). A file `<image_id>*.txt` may be
anywhere below the results' folder. Its lines are `mask.png label_id confidence`, separated by one space; the path of
the mask is relative to the file. Category ids are label ids.
"""

from __future__ import annotations

import math
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import png
from segkit.formats.cityscapes.label_pngs import CATEGORIES, LABELS, LAST_LABEL_ID
from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes, replacing
from segkit.utils.text import abbreviate

NOT_EVALUATED = {x.label_id: x.name for x in LABELS if x.has_instances and x.ignored}  # caravan, trailer
PLAIN_NAME = re.compile(r"\w[\w.-]*")  # without a space, which would end the path in a line
LINE = "`mask.png label_id confidence`, separated by one space each"


class ResultLine(NamedTuple):
    """One predicted instance.

    Attributes:
        mask_path: Path of the mask's PNG.
        category_id: Label id of a thing.
        score: Finite confidence.
        where: File and line, for messages.
    """

    mask_path: Path
    category_id: int
    score: float
    where: str


class ResultFiles:
    """The text files below a folder, listed once.

    Args:
        folder: Folder of the results.

    Raises:
        DatasetError: The folder is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DatasetError("the folder of results does not exist", where=folder, remedy="check the path")
        paths = ((name, Path(root, name)) for root, _, names in os.walk(folder) for name in names)
        self._named_paths = sorted((name, path) for name, path in paths if name.endswith(".txt"))

    def find(self, image_id: str) -> Path:
        """Find the text file of an image.

        Args:
            image_id: Stem that the names of the image's files share.

        Returns:
            The path of `<image_id>*.txt`.

        Raises:
            DatasetError: The image has no file, or more than one.
        """
        first = bisect_left(self._named_paths, image_id, key=itemgetter(0))
        matches = takewhile(lambda named: named[0].startswith(image_id), self._named_paths[first:])
        paths = [path for _, path in matches]
        if len(paths) != 1:
            got, remedy = "none", "an image without instances needs an empty file"
            if paths:
                names = abbreviate(str(path.relative_to(self.folder)) for path in paths)
                got, remedy = f"{len(paths)}: {names}", "keep one of them"
            raise DatasetError(f"expected one file {image_id}*.txt, found {got}", where=self.folder, remedy=remedy)
        return paths[0]


def read_result_lines(path: str | Path, root: str | Path, on_issue: Callable[[DatasetError], None]) -> list[ResultLine]:
    """Read the instances of one text file.

    Args:
        path: Text file of one image.
        root: Folder of the results, which must hold all masks.
        on_issue: Gets the error of each invalid line. Invalid are another form; a path that is absolute, outside
            `root` or repeated; a label id without instances; a confidence that is not finite.

    Returns:
        The valid lines in their order, without labels that the evaluation ignores, as in the reference.

    Raises:
        DatasetError: The file is missing or not text.
    """
    path, root = Path(path), Path(root)
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"expected text in UTF-8: {error}", where=path) from None
    line_by_mask: dict[Path, ResultLine] = {}
    for number, text in enumerate(lines, 1):
        try:
            line = _parse_line(text, path, root, f"{path}, line {number}")
            if line.mask_path in line_by_mask:
                first = line_by_mask[line.mask_path].where.removeprefix(f"{path}, ")
                raise DatasetError(f"expected a mask for each line, got the mask of {first} again", where=line.where)
            line_by_mask[line.mask_path] = line
        except DatasetError as error:
            on_issue(error)
    return [line for line in line_by_mask.values() if line.category_id not in NOT_EVALUATED]


def read_result_mask(path: str | Path, size_hw: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Read a mask, cropped to its tight box; every pixel whose grey value is not 0 belongs to the mask.

    Args:
        path: PNG of one channel and at most 8 bits.
        size_hw: Expected height and width in pixels.

    Returns:
        The (h, w) bool crop, and its corner (left, top); an empty mask gives 0 x 0 at (0, 0).

    Raises:
        DatasetError: The file is missing, cut off, another kind of PNG, or of another size.
    """
    path = Path(path)
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
    """Write `<image_id>_pred.txt`, and each mask as `<image_id>/<number>.png` of 1 bit.

    Scores are written so that they read back the same. The text file comes last, whole or not at all; it is empty if no
    instance has a pixel.

    Args:
        folder: Folder of the results.
        image_id: Letters, digits, "_", "-" and "." only, since a space would end the path in a line.
        size_hw: Height and width of the masks in pixels.
        instances: (category_id, score, crop, corner_xy) each, the crop an (h, w) bool array at (left, top).

    Returns:
        The path of the text file.

    Raises:
        ValueError: The image_id has other characters, a category_id is not a thing's, or a score is not finite.
    """
    if not PLAIN_NAME.fullmatch(image_id):
        raise ValueError(f"image_id must consist of letters, digits, '_', '-' and '.', got {image_id!r}")
    path = Path(folder, f"{image_id}_pred.txt")
    lines = []
    for number, (category_id, score, crop, (left, top)) in enumerate(instances):
        if category_id not in CATEGORIES.thing_contiguous_ids or not math.isfinite(score):
            raise ValueError(f"instance {number} must have a thing's id and a finite score, got {category_id}, {score}")
        if crop.any():
            mask_name = f"{image_id}/{number:03d}.png"
            mask = np.zeros(size_hw, dtype=np.bool_)
            mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            with replacing(path.parent / mask_name) as temporary:  # 1 bit per pixel: a fraction of the time and size
                Image.fromarray(mask).save(temporary, "PNG")
            lines.append(f"{mask_name} {category_id} {float(score)!r}\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path


def _parse_line(text: str, path: Path, root: Path, where: str) -> ResultLine:
    parts = text.split(" ")
    if len(parts) != 3:
        raise DatasetError(f"expected {LINE}, got {text!r}", where=where)
    mask_path = Path(os.path.abspath(path.parent / parts[0]))
    if os.path.isabs(parts[0]) or not mask_path.is_relative_to(os.path.abspath(root)):
        raise DatasetError(f"expected a relative path to a mask below {root}, got {parts[0]!r}", where=where)
    label_id, score = _parse_number(parts[1], "label id", where), _parse_number(parts[2], "confidence", where)
    if label_id not in CATEGORIES.thing_contiguous_ids and label_id not in NOT_EVALUATED:
        expected = f"a label id out of {[*CATEGORIES.thing_contiguous_ids]}"
        reason = "has no instances" if label_id in range(LAST_LABEL_ID + 1) else "is no label"
        raise DatasetError(f"expected {expected}, got {parts[1]}, which {reason}", where=where)
    return ResultLine(mask_path, int(label_id), score, where)


def _parse_number(text: str, name: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DatasetError(f"expected a finite {name}, got {text!r}", where=where)
    return number
