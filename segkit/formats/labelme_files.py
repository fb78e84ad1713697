"""labelme's JSON files: the picture, its size and the shapes that each names, checked."""

from __future__ import annotations

import posixpath
import reprlib
from dataclasses import dataclass
from pathlib import Path

from segkit.formats import coco_tables as coco
from segkit.formats import files, labelme_shapes
from segkit.formats.coco_tables import Entry
from segkit.formats.labelme_shapes import Shape
from segkit.formats.source import Tell
from segkit.structures import DatasetError

SUFFIX = ".json"
MAX_BYTES = 2**29  # of a JSON, whose largest part by far is a picture in base64
NOT_LABELME = "expected labelme's object with `shapes`"


@dataclass(frozen=True, eq=False)
class Drawing:
    """One JSON. file_name: of the picture in root. size_hw: as the JSON has it, unchecked. skipped: a line on each
    shape that has no area."""

    file_name: str
    size_hw: tuple[object, object]
    shapes: tuple[Shape, ...]
    skipped: tuple[str, ...]


def read(root: Path, name: str, tell: Tell) -> Drawing | None:
    """The JSON `name` in root; None where something is wrong with it, once that is told."""
    path = root / name
    code = "json-unreadable"
    try:
        content = _load(path)
        code = "json-kind"
        if type(content) is not dict or "shapes" not in content:
            got = f"one with {coco.listed(content)}" if type(content) is dict else f"a {type(content).__name__}"
            raise DatasetError(f"{NOT_LABELME}, got {got}", where=path, remedy="move other files elsewhere")
        code = "annotation-unreadable"
        shapes, skipped = _shapes(content, path)
        image_path: str = coco.field(content, "imagePath", coco.TEXT, path)
        code = "name-outside"
        file_name = _picture_name(image_path, name, path)
    except DatasetError as error:
        tell(code, error)
        return None
    size_hw = content.get("imageHeight"), content.get("imageWidth")
    return Drawing(file_name, size_hw, tuple(shapes), tuple(skipped))


def _load(path: Path) -> object:
    if not path.is_file():
        raise DatasetError("expected a file, found a link to nothing, a pipe or a device", where=path)
    if path.stat().st_size > MAX_BYTES:
        problem = f"expected at most {MAX_BYTES >> 20} MiB of JSON, got {path.stat().st_size >> 20}"
        raise DatasetError(problem, where=path, remedy="save it without imageData")
    return files.load_json(path)


def _shapes(content: Entry, path: Path) -> tuple[list[Shape], list[str]]:
    shapes, skipped = [], []
    for index, entry in enumerate(coco.table(content, "shapes", path)):
        where = f"{path}, shape {index}"
        if labelme_shapes.has_area(entry, where):
            shapes.append(labelme_shapes.parse(entry, where))
        else:
            label = reprlib.repr(entry.get("label"))
            skipped.append(f"{where}: a {entry['shape_type']} has no area, {label} is not read")
    return shapes, skipped


def _picture_name(image_path: str, json_name: str, path: Path) -> str:
    """The picture's path in root; imagePath is seen from the JSON, and written on Windows has backslashes."""
    seen = posixpath.join(posixpath.dirname(json_name), image_path.replace("\\", "/"))
    name = posixpath.normpath(seen) if image_path else ""
    coco.check_inside(name, "imagePath", path)
    return name
