"""data.yaml of YOLO: the names of the classes, and where the images of each split are."""

from __future__ import annotations

import os
import posixpath
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segkit.formats.image_files import check_folder, files_below
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import read_bytes
from segkit.utils.issues import IssueHandler
from segkit.utils.json_fields import check_inside
from segkit.utils.text import suggest
from segkit.utils.yaml_text import parse_yaml

DATA_FILE, CLASSES_FILE = "data.yaml", "classes.txt"
IMAGES, LABELS = "images", "labels"  # folders
YAML_SUFFIXES = (".yaml", ".yml")
SPLITS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}  # -> keys of data.yaml
MAX_BYTES = 2**24
MAX_CLASSES = 2**16
TREE = "give the folder of data.yaml, or a folder with images, labels and classes.txt"


@dataclass(frozen=True)
class DatasetFile:
    """What data.yaml says, or what a folder without it holds.

    Attributes:
        path: data.yaml, or the folder without it.
        root: folder that holds the images and labels.
        names: category_id -> name.
        sets: split -> its folders and text files, as they are written.
        given_path: `path` as it is written; "" if there is none.
    """

    path: Path
    root: Path
    names: Mapping[int, str]
    sets: Mapping[str, tuple[str, ...]]
    given_path: str = ""


def read_dataset_file(root: Path, path: Path | None, classes: object) -> DatasetFile:
    """Read data.yaml.

    root: its folder, or the file itself. path: in place of `path` in the file. classes: names, in place of its own.

    DatasetError if it is missing or invalid, or two files could be it.
    """
    yaml_path = _find_yaml(root)
    if yaml_path is None:
        return _describe_folder(root, classes)
    content = _load(yaml_path)
    names = parse_names(content.get("names") if classes is None else classes, content.get("nc"), yaml_path)
    sets = {split: _get_entries(content, keys, yaml_path) for split, keys in SPLITS.items()}
    base = yaml_path.parent if path is None else path
    given = content.get("path") or ""
    if not isinstance(given, str):
        raise DatasetError(f"expected `path` to be a path, got {reprlib.repr(given)}", where=yaml_path)
    if path is None and (inner := _get_inner(base, given)) is not None and os.path.isdir(base / inner):
        base = base / inner
    named_sets = {split: entries for split, entries in sets.items() if entries}
    return DatasetFile(yaml_path, base, names, named_sets, given)


def list_images(file: DatasetFile, split: str, on_issue: IssueHandler) -> list[str]:
    """The images of a split, as paths in `file.root` with "/"; images of a text file that are missing are reported.

    DatasetError if data.yaml does not name the split, or a folder or text file is missing or outside the root.
    """
    if split not in file.sets:
        problem = f"expected the images of {split!r}, the splits are {', '.join(file.sets) or 'none'}"
        remedy = f"add `{split}` to it" if os.path.isfile(file.path) else "divide the images by val_share"
        remedy = remedy if split in SPLITS else suggest(split, SPLITS, f"the splits are {', '.join(SPLITS)}")
        raise DatasetError(problem, where=file.path, remedy=remedy)
    names: list[str] = []
    for entry in file.sets[split]:
        relative = _locate(file, entry)
        if os.path.isdir(file.root / relative):
            below = files_below(file.root / relative, TREE)
            images = (name for name in below if name.lower().endswith(IMAGE_SUFFIXES))
            names += [posixpath.normpath(posixpath.join(relative, name)) for name in images]
        else:
            names += _read_list(file, relative, on_issue)
    if not names:
        raise DatasetError(
            f"expected images of {split!r} in {', '.join(file.sets[split])}, found none", where=file.path
        )
    return sorted({*names})


def choose_image_root(file: DatasetFile, split: str, names: Sequence[str]) -> str:
    """The folder of a split's images, as a path in `file.root`: the one that is named, or else what they share."""
    named = _locate(file, file.sets[split][0])
    if len(file.sets[split]) == 1 and os.path.isdir(file.root / named):
        return named
    return posixpath.commonpath([posixpath.dirname(name) for name in names])


def has_lists(file: DatasetFile, split: str) -> bool:
    """Whether a text file lists images of the split: its folders may then hold images of other splits too."""
    return any(os.path.isfile(file.root / _locate(file, entry)) for entry in file.sets[split])


def get_label_name(image: str) -> str:
    """The label file of an image: the last folder `images` of its path becomes `labels`, the suffix .txt."""
    *folders, name = image.split("/")
    for index in range(len(folders) - 1, -1, -1):
        if folders[index] == IMAGES:
            folders[index] = LABELS
            break
    return posixpath.join(*folders, f"{PurePosixPath(name).stem}.txt")


def parse_names(names: object, count: object, where: object) -> dict[int, str]:
    """The names by class, from a list, or an object of class and name; "class_0", ... if only `nc` is given."""
    if names is None and type(count) is int and 0 < count <= MAX_CLASSES:
        return {index: f"class_{index}" for index in range(count)}
    entries = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names
    if not isinstance(entries, Mapping) or not 0 < len(entries) <= MAX_CLASSES:
        problem = f"expected `names` of 1 to {MAX_CLASSES} classes, got {reprlib.repr(names)}"
        raise DatasetError(problem, where=where)
    by_class: dict[int, str] = {}
    for key, name in entries.items():
        is_class = str(key).isdecimal() and int(key) not in by_class
        if not is_class or not isinstance(name, (str, int, float)) or not str(name):
            got = f"{reprlib.repr(key)}: {reprlib.repr(name)}"
            raise DatasetError(f"expected a different class from 0 and a name in `names`, got {got}", where=where)
        by_class[int(key)] = str(name)
    if type(count) is int and count != len(by_class):
        problem = f"expected `nc` to be the number of the names, got {count} for {len(by_class)} names"
        raise DatasetError(problem, where=where, remedy="correct one of them")
    return by_class


def _find_yaml(root: Path) -> Path | None:
    if os.path.isfile(root):
        return root
    check_folder(root, TREE)
    if os.path.isfile(root / DATA_FILE):
        return root / DATA_FILE
    paths = sorted(path for path in root.iterdir() if path.suffix in YAML_SUFFIXES and path.is_file())
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise DatasetError(f"expected {DATA_FILE}, found {names}", where=root, remedy="give the file as root")
    return paths[0] if paths else None


def _describe_folder(root: Path, classes: object) -> DatasetFile:
    paths = [path for path in (root / CLASSES_FILE, root / LABELS / CLASSES_FILE) if os.path.isfile(path)]
    if classes is None and not paths:
        problem = f"expected {DATA_FILE} or {CLASSES_FILE}, found neither"
        raise DatasetError(problem, where=root, remedy=f"{TREE}; or name the classes by --set 'classes=[NAME, ...]'")
    if classes is None:
        lines = read_bytes(paths[0], MAX_BYTES).decode("utf-8-sig", "replace").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    names = parse_names(classes, None, paths[0] if paths else "classes")
    return DatasetFile(root, root, names, {"train": (IMAGES if os.path.isdir(root / IMAGES) else ".",)})


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_yaml(read_bytes(path, MAX_BYTES).decode("utf-8-sig"))
    except (ConfigError, UnicodeDecodeError) as error:
        problem = f"expected YAML, got something else: {error}"
        raise DatasetError(problem, where=path, remedy="is it YOLO's data.yaml?") from None
    if not isinstance(content, dict):
        raise DatasetError(f"expected an object with names, train and val, got {type(content).__name__}", where=path)
    return content


def _get_entries(content: Mapping[str, Any], keys: tuple[str, ...], where: Path) -> tuple[str, ...]:
    """The folders and text files of a split; () if the file does not name it."""
    value = next((content[key] for key in keys if content.get(key)), ())
    entries = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(entry, str) for entry in entries):
        raise DatasetError(f"expected `{keys[0]}` to be paths, got {reprlib.repr(value)}", where=where)
    return entries


def _locate(file: DatasetFile, entry: str) -> str:
    """The path in `file.root` of a folder or file of a split.

    A dataset that was moved has the path of another computer: then the longest end of the path counts that exists,
    of two names or more.
    """
    name = _get_inner(file.root, entry)
    if name is not None and os.path.exists(file.root / name):
        return name
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = [posixpath.join(*parts[first:]) for first in range(max(1, len(parts) - 1))] if parts else []
    for end in ends:
        if os.path.exists(file.root / end):
            return check_inside(end, "path", file.path)
    if os.path.exists(file.root / file.given_path / entry):
        problem = f"{posixpath.join(file.given_path, entry)!r} leads out of {file.root}"
        raise DatasetError(problem, where=file.path, remedy="name the folder of the dataset by --set path=FOLDER")
    raise DatasetError(f"expected {entry!r} in {file.root}, found nothing", where=file.path, remedy="correct the path")


def _get_inner(root: Path, entry: str) -> str | None:
    """The entry as a path in the root with "/", "." for the root; None if it leads out of it."""
    name = posixpath.normpath(entry.replace("\\", "/"))
    if posixpath.isabs(name):
        absolute = posixpath.normpath(Path(os.path.abspath(root)).as_posix())
        name = posixpath.relpath(name, absolute)
    return None if name.split("/")[0] == ".." or name[1:2] == ":" or "\0" in name else name


def _read_list(file: DatasetFile, relative: str, on_issue: IssueHandler) -> list[str]:
    """The images that a text file lists, one in each line, relative to it or to the root."""
    text = read_bytes(file.root / relative).decode("utf-8-sig", "surrogateescape")
    names = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        beside = _get_inner(file.root, posixpath.join(posixpath.dirname(relative), line.replace("\\", "/")))
        if beside is not None and os.path.isfile(file.root / beside):
            names.append(beside)
            continue
        try:
            names.append(_locate(file, line))
        except DatasetError as error:
            on_issue("image-missing", error)
    return names
