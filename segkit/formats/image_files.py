"""The files of an image in several folders: found, paired by name, compared in size, and named by writers."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from segkit.formats import png
from segkit.formats.base import DatasetImage
from segkit.formats.image_io import IMAGE_SUFFIXES, TIFF_SUFFIXES, read_image_size
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, describe_unused
from segkit.utils.json_fields import Location, check_inside

# A file system may tell .jpg from .JPG.
IMAGE_SUFFIX_CASES = tuple(case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper()))
MAX_NAME_BYTES = 255  # of a file, to most file systems
LONGEST_SUFFIX = ".json"  # of the label files that have the picture's stem


def files_below(folder: Path, remedy: str) -> list[str]:
    """The paths in the folder, with "/", of the files in it and its sub-folders, sorted.

    Hidden files and folders are passed over, linked folders not entered. A link is taken as a file even where it leads
    nowhere: opening it then says so. Raises DatasetError where there is no such folder, or one cannot be listed.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise DatasetError("no such folder", where=folder, remedy=remedy)
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def find_by_suffix(folder: str | Path, suffix: str = ".png") -> dict[str, Path]:
    """The files in the folder and its sub-folders whose names end in `suffix`, sorted, by their path in the folder
    without the suffix (`city/name`); hidden files and folders are passed over.

    Raises DatasetError where there is no such folder or no such file.
    """
    root = Path(folder)
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise DatasetError("expected a folder of label PNGs, found none", where=root, remedy="check the path")
    names = [name for name in files_below(root, "") if name.endswith(suffix) and os.path.isfile(root / name)]
    if not names:
        remedy = "check the folder, and the suffix of its files"
        raise DatasetError(f"expected files whose names end in {suffix!r}, found none", where=root, remedy=remedy)
    return {name.removesuffix(suffix): root / name for name in names}


def describe_unused_images(folder: Path, used: Collection[str], what: str) -> tuple[str, ...]:
    """The line of `DatasetReader.skipped` on pictures or PNGs in the folder that are no used names; none where there
    are none, or no folder."""
    names = files_below(folder, "") if os.path.isdir(folder) else []
    return describe_unused(folder, what, [n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and n not in used])


def find_by_stem(
    folder: Path, suffixes: Sequence[str], remedy: str, code_twice: str, on_issue: IssueHandler
) -> dict[str, Path]:
    """The files with such a suffix, in any case, by their path in the folder without it, sorted.

    Of two with one name, the first counts, and the other is told as code_twice. Raises DatasetError as `files_below`
    does, and where there is no such file.
    """
    found: dict[str, Path] = {}
    for file_name in files_below(folder, remedy):
        path, name = folder / file_name, strip_suffix(file_name)
        if path.suffix.lower() not in suffixes:
            continue
        if name in found:
            problem = f"expected one file of a name, got {found[name].name} and {path.name}"
            on_issue(code_twice, DatasetError(problem, where=path, remedy=remedy))
        else:
            found[name] = path
    if not found:
        raise DatasetError(f"expected files named *{', *'.join(suffixes)}, found none", where=folder, remedy=remedy)
    return dict(sorted(found.items()))


def read_common_size(image: Path, labels: Sequence[Path], on_issue: IssueHandler) -> tuple[int, int] | None:
    """(height, width) of a picture, turned as its EXIF says, and of its label PNGs or TIFFs, from their headers.

    None, once it is told, where one is missing, no such file, or of another size than the picture.
    """
    code = "image-unreadable" if os.path.isfile(image) else "image-missing"
    try:
        size_hw = read_image_size(image)
        sizes = {}
        for path in labels:
            code = "png-missing"
            if not os.path.isfile(path):
                raise DatasetError("the label map is missing, or no file", where=path, remedy="check the path")
            code = "png-unreadable"
            sizes[path] = _map_size(path)
        code = "size-differs"
        check_sizes(image, size_hw, sizes)
    except DatasetError as error:
        on_issue(code, error)
        return None
    return size_hw


def check_sizes(image: Path, size_hw: tuple[int, int], sizes: Mapping[Path, tuple[int, ...]]) -> None:
    """DatasetError where one of these files is not of the picture's (height, width)."""
    if {*sizes.values()} - {tuple(size_hw)}:
        expected, *got = (" x ".join(map(str, size)) for size in (size_hw, *sizes.values()))
        problem = f"expected {expected} pixels (height x width) as {image} has, got {' and '.join(got)}"
        raise DatasetError(problem, where=" and ".join(map(str, sizes)))


def strip_suffix(file_name: str) -> str:
    """The path, with "/", without the suffix: what the files of an image share."""
    return PurePosixPath(file_name).with_suffix("").as_posix()


def get_unique_stem(image: DatasetImage, taken: Collection[str], root: Path) -> str:
    """The image's `stem`, for its label files; DatasetError where it leads out of its folder, is hidden, too long, or
    taken."""
    where = Location(root, image.image_id)
    check_plain_name(image.file_name, where)
    name = strip_suffix(image.file_name)
    check_name_length(f"{PurePosixPath(name).name}{LONGEST_SUFFIX}", where)
    if name in taken:
        raise DatasetError(f"an image named {name} was added before", where=where, remedy="rename the image")
    return name


def build_image_path(folder: Path, image: DatasetImage, suffixes: Collection[str] | None = None) -> Path:
    """Where the image's picture is to lie, under its own name; DatasetError for a name that leads out of the folder.

    suffixes: those of the pictures that a layout looks for in its folder. One with another is to be a PNG, which
    `convert.copy_picture` writes; and a name must be `check_plain`. None: the layout names its pictures, any will do.
    """
    where = Location(folder, image.image_id)
    if suffixes is None:
        check_inside(image.file_name, "file_name", where)
        return folder / image.file_name
    check_plain_name(image.file_name, where)
    path = folder / image.file_name
    return path if path.suffix in suffixes else path.with_suffix(".png")


def check_plain_name(file_name: str, where: Location) -> None:
    """DatasetError for a name that leads out of its folder, that `files_below` passes over as hidden, or that is a
    path on some systems only."""
    check_inside(file_name, "file_name", where)
    hidden = any(part.startswith(".") for part in PurePosixPath(file_name).parts)
    if hidden or "\\" in file_name:
        problem = f"expected a file_name without hidden parts and backslashes, got {file_name!r}"
        raise DatasetError(problem, where=where, remedy="rename the image")


def check_name_length(name: str, where: Location) -> None:
    """DatasetError where a file's name is too long for a file system."""
    n_bytes = len(name.encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_NAME_BYTES:
        problem = f"expected names of at most {MAX_NAME_BYTES} bytes, got {n_bytes} for {reprlib.repr(name)}"
        raise DatasetError(problem, where=where, remedy="rename the image")


def _refuse_folder(error: OSError) -> None:
    raise DatasetError(f"the folder cannot be listed: {error.strerror}", where=error.filename) from None


def _map_size(path: Path) -> tuple[int, int]:
    if path.suffix.lower() in TIFF_SUFFIXES:
        return read_image_size(path)
    header = png.read_header(path)
    return header.height, header.width
