"""labelme's JSON files, checked one by one, and the images that belong to them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from segkit.formats import image_files
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.formats.labelme.embedded_images import read_embedded_size
from segkit.formats.labelme.shapes import JSON_SUFFIX, Shape, decode_mask, parse_shape
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.files import check_file_size, load_json
from segkit.utils.issues import IssueHandler, describe_unused, try_read
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

MAX_BYTES = 2**29  # of a JSON, whose largest part by far is an image in base64


@dataclass(frozen=True, eq=False)
class LabelmeFile:
    """One checked JSON.

    Attributes:
        file_name: Path of the image in root, with "/"; if the image is in the JSON, no file is there.
        embedded_size_hw: Height and width of the image in the JSON; None if it is a file.
        size_hw: Height and width as the JSON has them, unchecked.
        shapes: The shapes that have an area, in their order.
        skipped: A line on each shape without area.
    """

    file_name: str
    embedded_size_hw: tuple[int, int] | None
    size_hw: tuple[object, object]
    shapes: tuple[Shape, ...]
    skipped: tuple[str, ...]


def read_all(root: Path, json_names: Sequence[str], line_width: int, on_issue: IssueHandler) -> dict[str, LabelmeFile]:
    """Name of the JSON -> its content; of two JSONs with one image, the first counts."""
    contents: dict[str, LabelmeFile] = {}
    first_by_image: dict[str, str] = {}
    names = FolderNames(root)
    for name in json_names:
        content = _read_file(root, name, line_width, names, on_issue)
        if content is None:
            continue
        first = first_by_image.setdefault(content.file_name, name)
        if first == name:
            contents[name] = content
        else:
            problem = f"expected one JSON of an image, got {first} and {name} of {content.file_name}"
            remedy = "remove one, or correct its imagePath"
            on_issue("annotation-twice", DatasetError(problem, where=root / name, remedy=remedy))
    return contents


def _read_file(
    root: Path, name: str, line_width: int, names: FolderNames, on_issue: IssueHandler
) -> LabelmeFile | None:
    """Read the JSON `name` in root; None, once reported, if it is invalid.

    All invalid shapes are reported. If there are any, so are the damaged masks of the others, which are not decoded
    later.
    """
    path = root / name
    code = "json-unreadable"
    try:
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise DatasetError("expected a file, found a broken link, a pipe or a device", where=path)
        check_file_size(path, MAX_BYTES, "save it without imageData")
        content = load_json(path)
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
    results = [
        try_read(on_issue, code, parse_shape, entry, f"{path}, shape {i}", line_width)
        for i, entry in enumerate(entries)
    ]
    shapes = tuple(result for result in results if isinstance(result, Shape))
    for shape in shapes if None in results else ():
        if shape.kind == "mask":
            try_read(on_issue, code, decode_mask, shape)
    image = _find_image(root, name, content, names, on_issue)
    if None in results or image is None:
        return None
    lines = tuple(result for result in results if isinstance(result, str))
    return LabelmeFile(*image, (content.get("imageHeight"), content.get("imageWidth")), shapes, lines)


def _find_image(
    root: Path, name: str, content: Entry, names: FolderNames, on_issue: IssueHandler
) -> tuple[str, tuple[int, int] | None] | None:
    """The image's path in root, and its size if it is in imageData; None, once reported, if both are invalid."""
    path, file_name = root / name, None
    issues: list[tuple[str, DatasetError]] = []

    def keep(code: str, error: DatasetError) -> None:
        issues.append((code, error))

    code = "annotation-unreadable"
    image_path = try_read(keep, code, json_fields.get_field, content, "imagePath", json_fields.TEXT, path)
    if image_path is not None:
        file_name = try_read(keep, "name-outside", _resolve_image_name, image_path, name, path, names)
    if (file_name is None or not os.path.isfile(root / file_name)) and content.get("imageData"):
        issues = []
        size_hw = try_read(keep, "image-unreadable", read_embedded_size, content, path)
        stem = name.removesuffix(JSON_SUFFIX)
        free_names = chain([f"{stem}.png"], (f"{stem}_{number}.png" for number in count(1)))
        file_name = next(name for name in free_names if not os.path.lexists(root / name))
    else:
        size_hw = None
    for issue in issues:
        on_issue(*issue)
    return None if issues or file_name is None else (file_name, size_hw)


def _resolve_image_name(image_path: str, json_name: str, path: Path, names: FolderNames) -> str:
    """The image's path in root: imagePath is relative to the JSON, and has backslashes if written on Windows."""
    folder, slashed = posixpath.dirname(json_name), image_path.replace("\\", "/")
    joined = posixpath.join(folder, slashed)
    try:
        name = json_fields.check_inside(posixpath.normpath(joined) if image_path else "", "imagePath", path)
    except DatasetError as error:
        neighbour = names.find(posixpath.join(folder, posixpath.basename(slashed)))
        problem = f"{error.problem} (is it {neighbour}?)" if neighbour else error.problem
        raise DatasetError(problem, where=path, remedy="write it relative to the JSON", code=error.code) from None
    return names.resolve(name)


def describe_images_without_json(
    root: Path, names: Sequence[str], json_names: Sequence[str], contents: Mapping[str, LabelmeFile]
) -> tuple[str, ...]:
    """The line on images without JSON; images beside a JSON that cannot be read are not in it."""
    used = {content.file_name for content in contents.values()}
    unread = {name.removesuffix(JSON_SUFFIX) for name in json_names if name not in contents}
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    unused = [name for name in images if name not in used and image_files.strip_suffix(name) not in unread]
    return describe_unused(root, "images have no JSON", unused)
