"""labelme's JSON files: the picture, its size and the shapes that each names, checked."""

from __future__ import annotations

import os
import posixpath
import reprlib
from dataclasses import dataclass
from pathlib import Path

from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.shapes import Shape
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, try_read
from segkit.utils.text import abbreviate

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


def read(root: Path, name: str, on_issue: IssueHandler) -> Drawing | None:
    """The JSON `name` in root; None where something is wrong with it, once that is told."""
    path = root / name
    code = "json-unreadable"
    try:
        content = _load(path)
        code = "json-kind"
        if type(content) is not dict or "shapes" not in content:
            got = f"one with {abbreviate(content)}" if type(content) is dict else f"a {type(content).__name__}"
            raise DatasetError(f"{NOT_LABELME}, got {got}", where=path, remedy="move other files elsewhere")
        code = "annotation-unreadable"
        entries = json_fields.get_field(content, "shapes", json_fields.LIST, path)
    except DatasetError as error:
        on_issue(code, error)
        return None
    found = _shapes(entries, path, on_issue)
    image_path = try_read(
        on_issue, "annotation-unreadable", json_fields.get_field, content, "imagePath", json_fields.TEXT, path
    )
    file_name = None if image_path is None else try_read(on_issue, "name-outside", _image_name, image_path, name, path)
    if found is None or file_name is None:
        return None
    return Drawing(file_name, (content.get("imageHeight"), content.get("imageWidth")), *found)


def _load(path: Path) -> object:
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise DatasetError("expected a file, found a link to nothing, a pipe or a device", where=path)
    if path.stat().st_size > MAX_BYTES:
        problem = f"expected at most {MAX_BYTES >> 20} MiB of JSON, got {path.stat().st_size >> 20}"
        raise DatasetError(problem, where=path, remedy="save it without imageData")
    return files.load_json(path)


def _shapes(
    entries: list[object], path: Path, on_issue: IssueHandler
) -> tuple[tuple[Shape, ...], tuple[str, ...]] | None:
    """Those that have an area, and a line on each of the others; None where one is malformed, once all such, and the
    damaged masks of the others, which nobody will ask for, are told."""
    places = [f"{path}, shape {index}" for index in range(len(entries))]
    code = "annotation-unreadable"
    found = [try_read(on_issue, code, _shape, *each) for each in zip(entries, places, strict=True)]
    if None in found:
        for shape in found:
            if isinstance(shape, Shape) and shape.kind == "mask":
                try_read(on_issue, code, labelme_shapes.decode, shape)
        return None
    shapes = tuple(shape for shape in found if isinstance(shape, Shape))
    return shapes, tuple(line for line in found if isinstance(line, str))


def _shape(entry: object, where: str) -> Shape | str:
    """The shape, or the line on one without area."""
    if type(entry) is not dict:
        raise DatasetError(f"expected an object, got {reprlib.repr(entry)}", where=where)
    if labelme_shapes.has_area(entry, where):
        return labelme_shapes.parse(entry, where)
    label = reprlib.repr(entry.get("label"))
    return f"{where}: a {entry['shape_type']} has no area, {label} is not read"


def _image_name(image_path: str, json_name: str, path: Path) -> str:
    """The picture's path in root; imagePath is seen from the JSON, and written on Windows has backslashes."""
    seen = posixpath.join(posixpath.dirname(json_name), image_path.replace("\\", "/"))
    name = posixpath.normpath(seen) if image_path else ""
    json_fields.check_inside(name, "imagePath", path)
    return name
