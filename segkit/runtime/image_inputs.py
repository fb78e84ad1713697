"""The images that `segkit predict` is given: files, folders and patterns."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segkit.formats import coco
from segkit.runtime.video import is_video
from segkit.structures import ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import resolve_names
from segkit.utils.files import load_json
from segkit.utils.text import abbreviate

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
SYSTEM_FILES = (".ds_store", "thumbs.db", "desktop.ini")
APPLE_DOUBLE = "._"  # macOS writes `._1.png` beside 1.png on foreign disks; it is no image

log = logging.getLogger(__name__)


def find_images(inputs: Iterable[str], output: str | Path | None = None) -> list[Path]:
    """List the images that files, folders and patterns name. The images are not opened.

    Files of the system and, in folders, hidden files and videos are skipped with a note in the log. Linked folders are
    not entered.

    Args:
        inputs: files, folders (searched with all folders below), or glob patterns of files and folders.
        output: folder of earlier results, skipped if it lies in a folder that is searched.

    Returns:
        The images in the order of `inputs`, sorted within each, without repetitions.

    Raises:
        DatasetError: an input without images.
        OSError: a folder cannot be listed.
    """
    output = None if output is None else Path(output)
    images: dict[str, Path] = {}  # by absolute path
    skipped: list[str] = []
    for name in inputs:
        named = [Path(name)] if os.path.lexists(name) else [Path(match) for match in sorted(_expand(name))]
        found = [path for start in named for path in _list_images(start, output, skipped)]
        if not found:
            remedy = f"give files, folders or patterns of {IMAGE_SUFFIXES}; name videos themselves, or by a pattern"
            raise DatasetError("no images found", where=name, remedy=remedy)
        for path in found:
            images.setdefault(os.path.abspath(path), path)
    videos = [name for name in skipped if is_video(name)]
    others = [name for name in skipped if not is_video(name)]
    if others:
        log.warning("skipped %d hidden or system files: %s", len(others), abbreviate(others))
    if videos:
        log.warning("skipped %d videos in folders; name them to predict them: %s", len(videos), abbreviate(videos))
    return [*images.values()]


class ListedImages(NamedTuple):
    """Images of a list in COCO's format.

    Attributes:
        paths: their files.
        file_names: their names in the list.
        image_ids: their ids in the list.
        sizes_hw: (height, width) of each in the list, None if it is not listed.
    """

    paths: list[Path]
    file_names: list[str]
    image_ids: list[ImageId]
    sizes_hw: list[tuple[int, int] | None]


def read_image_list(json_path: str | Path, root: str | Path) -> ListedImages:
    """Read the images that a COCO file lists, such as image_info_test-dev2017.json. The images are not opened.

    Args:
        json_path: JSON with the table `images`; annotations are not read.
        root: folder that the file names are relative to. Names in another spelling are found as readers find them.

    Returns:
        The images in the order of the list.

    Raises:
        DatasetError: the list cannot be read, is empty, or names files outside `root`; or none of the files is there.
    """
    json_path, root = Path(json_path), Path(root)
    content = load_json(json_path)
    if not isinstance(content, dict):
        raise DatasetError("expected an object with the table `images`", where=json_path)
    entries = coco.read_images(content, json_path)
    if not entries:
        raise DatasetError("expected a list of images, got none", where=json_path)
    file_names = [entry["file_name"] for entry in entries.values()]
    paths = [root / name for name in resolve_names(root, file_names)]
    if not any(map(os.path.lexists, paths)):
        problem = f"none of the {len(paths)} images of {json_path} is in the folder: {abbreviate(file_names)}"
        raise DatasetError(problem, where=root, remedy="give the folder that the file names are relative to")
    sizes_hw = [(entry["height"], entry["width"]) for entry in entries.values()]
    return ListedImages(paths, file_names, [*entries], [*sizes_hw])


def find_root(inputs: Iterable[str]) -> Path:
    """Find the folder that all inputs share; file names in results are relative to it.

    Args:
        inputs: see `find_images`. A pattern counts as its folders before the first one with a wildcard.

    Returns:
        The folder as an absolute path. Of one folder, it is this folder; of one file, the folder it lies in.

    Raises:
        DatasetError: the inputs lie on several drives.
    """
    folders = [os.path.abspath(_get_folder(name)) for name in inputs]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        raise DatasetError(f"expected inputs on one drive, got {abbreviate(folders)}") from None


def check_apart(images: Sequence[Path], output: Path, written: Iterable[str]) -> None:
    """Check that no image, and no file beside the images, can be overwritten.

    Args:
        images: the input images.
        output: folder of the results.
        written: names of folders in `output`, which may be links.

    Raises:
        DatasetError: an image lies in the output folder or below it.
    """
    targets = [Path(os.path.realpath(folder)) for folder in (output, *(output / name for name in written))]
    for image in images:
        places = [*Path(os.path.realpath(image)).parents, *Path(os.path.realpath(image.parent), image.name).parents]
        if any(target in places for target in targets):
            problem = f"expected an output folder without input images, got {image} in it, which could be overwritten"
            raise DatasetError(problem, where=output, remedy="name another output folder")


def _expand(pattern: str) -> Iterator[str]:
    """The matches of a pattern; `**` stands for any folders, and gives their files rather than the folders."""
    return (match for match in glob.iglob(pattern, recursive=True) if "**" not in pattern or not os.path.isdir(match))


def _get_folder(name: str) -> Path:
    path = Path(name)
    if os.path.isdir(path):
        return path
    if os.path.lexists(path):
        return path.parent
    parts = path.parent.parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def _list_images(start: Path, output: Path | None, skipped: list[str]) -> list[Path]:
    """The images of a file or folder; hidden files, those of the system and videos are added to `skipped`."""
    if not os.path.isdir(start):
        if _is_system_file(start.name):
            skipped.append(str(start))
            return []
        return [start]
    paths = []
    excluded = None if output is None else os.path.realpath(output)
    for parent, folders, names in os.walk(start, onerror=_raise):
        folders[:] = [
            name for name in folders if not name.startswith(".") and os.path.realpath(Path(parent, name)) != excluded
        ]
        for name in names:
            if name.startswith(".") or _is_system_file(name) or is_video(name):
                skipped.append(str(Path(parent, name)))
            elif name.lower().endswith(IMAGE_SUFFIXES):
                paths.append(Path(parent, name))
    return sorted(paths)


def _is_system_file(name: str) -> bool:
    return name.startswith(APPLE_DOUBLE) or name.lower() in SYSTEM_FILES


def _raise(error: OSError) -> None:
    raise error
