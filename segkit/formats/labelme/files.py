"""labelme's JSON files: the image, its size and the shapes that each names, checked."""

from __future__ import annotations

import os
import posixpath
import reprlib
from dataclasses import dataclass
from pathlib import Path

from segkit.formats.labelme import shapes as labelme_shapes
from segkit.formats.labelme.shapes import Shape
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_file_size, load_json
from segkit.utils.issues import IssueHandler, try_read
from segkit.utils.text import abbreviate

JSON_SUFFIX = ".json"
MAX_BYTES = 2**29  # of a JSON, whose largest part by far is an image in base64


@dataclass(frozen=True, eq=False)
class LabelmeFile:
    """One checked JSON.

    Attributes:
        file_name: Path of the image in root, with "/".
        size_hw: Height and width as the JSON has them, unchecked.
        shapes: The shapes that have an area, in their order.
        skipped: A line on each shape without area.
    """

    file_name: str
    size_hw: tuple[object, object]
    shapes: tuple[Shape, ...]
    skipped: tuple[str, ...]


def read_labelme_file(root: Path, name: str, on_issue: IssueHandler) -> LabelmeFile | None:
    """Read the JSON `name` in root; None, once reported, if it is invalid."""
    path = root / name
    code = "json-unreadable"
    try:
        content = _load(path)
        code = "json-kind"
        if type(content) is not dict or "shapes" not in content:
            got = f"one with {abbreviate(content)}" if type(content) is dict else f"a {type(content).__name__}"
            problem = f"expected labelme's object with `shapes`, got {got}"
            raise DatasetError(problem, where=path, remedy="move other files elsewhere")
        code = "annotation-unreadable"
        entries = json_fields.get_field(content, "shapes", json_fields.LIST, path)
    except DatasetError as error:
        on_issue(code, error)
        return None
    shapes_and_skipped = _read_shapes(entries, path, on_issue)
    image_path = try_read(on_issue, code, json_fields.get_field, content, "imagePath", json_fields.TEXT, path)
    file_name = None
    if image_path is not None:
        file_name = try_read(on_issue, "name-outside", _resolve_image_name, image_path, name, path)
    if shapes_and_skipped is None or file_name is None:
        return None
    return LabelmeFile(file_name, (content.get("imageHeight"), content.get("imageWidth")), *shapes_and_skipped)


def _load(path: Path) -> object:
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise DatasetError("expected a file, found a broken link, a pipe or a device", where=path)
    check_file_size(path, MAX_BYTES, "save it without imageData")
    return load_json(path)


def _read_shapes(
    entries: list[object], path: Path, on_issue: IssueHandler
) -> tuple[tuple[Shape, ...], tuple[str, ...]] | None:
    """The shapes that have an area, and a line on each of the others.

    None if a shape is invalid. All invalid shapes are reported, and the damaged masks of the others too, since
    they are not decoded later.
    """
    code = "annotation-unreadable"
    results = [
        try_read(on_issue, code, _read_shape, entry, f"{path}, shape {index}") for index, entry in enumerate(entries)
    ]
    shapes = tuple(result for result in results if isinstance(result, Shape))
    if None in results:
        for shape in shapes:
            if shape.kind == "mask":
                try_read(on_issue, code, labelme_shapes.decode_mask, shape)
        return None
    return shapes, tuple(result for result in results if isinstance(result, str))


def _read_shape(entry: object, where: str) -> Shape | str:
    """The shape, or the line on a shape without area."""
    if type(entry) is not dict:
        raise DatasetError(f"expected an object, got {reprlib.repr(entry)}", where=where)
    if labelme_shapes.has_area(entry, where):
        return labelme_shapes.parse_shape(entry, where)
    label = reprlib.repr(entry.get("label"))
    return f"{where}: a {entry['shape_type']} has no area, {label} is not read"


def _resolve_image_name(image_path: str, json_name: str, path: Path) -> str:
    """The image's path in root: imagePath is relative to the JSON, and has backslashes if written on Windows."""
    joined = posixpath.join(posixpath.dirname(json_name), image_path.replace("\\", "/"))
    return json_fields.check_inside(posixpath.normpath(joined) if image_path else "", "imagePath", path)
