"""Files of a dataset in several folders: finding them, pairing them by name, comparing sizes, naming new ones."""

from __future__ import annotations

import os
import reprlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from segkit.formats import base, png
from segkit.formats.base import DatasetImage, DatasetWriter, UnfitImageError
from segkit.formats.image_io import IMAGE_SUFFIXES, TIFF_SUFFIXES, read_image_size
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, describe_unused
from segkit.utils.json_fields import Location, check_inside

# A file system may tell .jpg from .JPG.
IMAGE_SUFFIX_CASES = tuple(case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper()))
MAX_NAME_BYTES = 255  # of a file, to most file systems
LONGEST_SUFFIX = ".json"  # of label files, which have the stem of the image


class LabelFilesWriter(DatasetWriter):
    """Writes the labels of each image to files of the image's name; a subclass implements `_write`.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.
        images: Folder of the images below root.
    """

    def __init__(self, root: str | Path, categories: CategorySet, images: str = ".") -> None:
        super().__init__(root, categories)
        self.image_root = self.root / images
        self._names: dict[str, None] = {}  # of the images added, in their order

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class. The image's name must be `check_plain_name`, and short enough for its label files."""
        name = self._get_name(image)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        losses = self._write(image, name, segmentation, areas_px)
        self._names[name] = None
        losses += base.list_lost_scores(segmentation.segments)
        return losses + base.list_lost_annotations(annotations, segmentation)

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.image_root, image, IMAGE_SUFFIX_CASES)

    @abstractmethod
    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        """Write the label files; a line on each loss, except scores and what `annotations` hold.

        name: as `_get_name` returns it. areas_px: segment_id -> pixels of the segments that have any.
        """

    def _get_name(self, image: DatasetImage) -> str:
        """The name of the image's label files, which no earlier image had."""
        return get_unique_stem(image, self._names, self.root)


def check_folder(folder: Path, remedy: str) -> None:
    """Check that a folder exists.

    Args:
        folder: any path.
        remedy: for the message.

    Raises:
        DatasetError: it does not exist, or is a file.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise DatasetError("no such folder", where=folder, remedy=remedy)


def files_below(folder: Path, remedy: str) -> list[str]:
    """List the files in a folder and its sub-folders.

    Hidden files and folders are skipped, linked folders are not entered. A link counts as a file even if its target is
    missing: opening it then says so.

    Args:
        folder: any folder.
        remedy: for the message if there is no such folder.

    Returns:
        Sorted paths relative to the folder, with "/".

    Raises:
        DatasetError: the folder does not exist, or a folder cannot be listed.
    """
    check_folder(folder, remedy)
    paths = []
    for parent, folders, files in os.walk(folder, onerror=_raise_unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return sorted(paths)


def find_by_suffix(folder: str | Path, suffix: str = ".png") -> dict[str, Path]:
    """Find files by the end of their names.

    Args:
        folder: the folder, searched with its sub-folders; hidden files and folders are skipped.
        suffix: end of the names.

    Returns:
        Path in the folder without the suffix (`city/name`) -> file, sorted.

    Raises:
        DatasetError: there is no such folder or no such file.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise DatasetError("expected a folder of label PNGs, found none", where=root, remedy="check the path")
    names = [name for name in files_below(root, "") if name.endswith(suffix) and os.path.isfile(root / name)]
    if not names:
        remedy = "check the folder, and the suffix of its files"
        raise DatasetError(f"expected files whose names end in {suffix!r}, found none", where=root, remedy=remedy)
    return {name.removesuffix(suffix): root / name for name in names}


def find_by_pattern(folder: Path, parents: str, suffix: str) -> dict[str, Path]:
    """Find files of one depth by the end of their names, without hidden files.

    Args:
        folder: the folder; it may be missing.
        parents: pattern of the sub-folders, with "/" at the end; "" for none.
        suffix: end of the names.

    Returns:
        Path in the folder without the suffix -> file, sorted by file.
    """
    if not os.path.isdir(folder):  # Path.glob raises for a name that is too long
        return {}
    paths = sorted(path for path in folder.glob(f"{parents}*{suffix}") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in paths}


def describe_unused_images(folder: Path, used: Collection[str], what: str) -> tuple[str, ...]:
    """Describe images or PNGs in a folder that the dataset does not use.

    Args:
        folder: a folder; it may be missing.
        used: names in the folder that are used.
        what: text for what the other files are.

    Returns:
        One line for `DatasetReader.skipped`, or none.
    """
    names = files_below(folder, "") if os.path.isdir(folder) else []
    return describe_unused(folder, what, [n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and n not in used])


def find_by_stem(
    folder: Path, suffixes: Sequence[str], remedy: str, code_twice: str, on_issue: IssueHandler
) -> dict[str, Path]:
    """Find files by their path without suffix.

    Args:
        folder: the folder, searched with its sub-folders.
        suffixes: lower-case suffixes with the dot; those of files may have any case.
        remedy: for messages.
        code_twice: issue code if two files have one stem; the first one counts.
        on_issue: gets these issues.

    Returns:
        Path in the folder without suffix -> file, sorted.

    Raises:
        DatasetError: as `files_below`, or if no file has such a suffix.
    """
    names = [name for name in files_below(folder, remedy) if PurePosixPath(name).suffix.lower() in suffixes]
    paths = index_unique(((strip_suffix(name), folder / name) for name in names), code_twice, remedy, on_issue)
    if not paths:
        raise DatasetError(f"expected files named *{', *'.join(suffixes)}, found none", where=folder, remedy=remedy)
    return dict(sorted(paths.items()))


def index_unique(
    named_paths: Iterable[tuple[str, Path]], code_twice: str, remedy: str, on_issue: IssueHandler
) -> dict[str, Path]:
    """Index files by name; of two files with one name the first counts, and the other is reported.

    Args:
        named_paths: (name, file) pairs.
        code_twice: issue code for the other file.
        remedy: for messages.
        on_issue: gets these issues.

    Returns:
        Name -> file, in the order of the pairs.
    """
    paths: dict[str, Path] = {}
    for name, path in named_paths:
        first = paths.setdefault(name, path)
        if first is not path:
            got = f"{first.name} and {path.name}" if first.parent == path.parent else f"{first} too"
            on_issue(code_twice, DatasetError(f"expected one file of a name, got {got}", where=path, remedy=remedy))
    return paths


def read_common_size(
    image: Path,
    labels: Sequence[Path],
    on_issue: IssueHandler,
    read_size: Callable[[Path], tuple[int, int]] = read_image_size,
) -> tuple[int, int] | None:
    """Read the size of an image from its header, and check that its label maps have the same size.

    Args:
        image: image file.
        labels: label PNGs or TIFFs of the image.
        on_issue: gets the error if a file is missing or unreadable, or the sizes differ.
        read_size: reads (height, width) of the image.

    Returns:
        (height, width) in pixels, rotated as EXIF says; None if there was an issue.
    """
    code = "image-unreadable" if os.path.isfile(image) else "image-missing"
    try:
        size_hw = read_size(image)
        sizes = {}
        for path in labels:
            code = "png-missing"
            if not os.path.isfile(path):
                raise DatasetError("the label map is missing, or no file", where=path, remedy="check the path")
            code = "png-unreadable"
            is_tiff = path.suffix.lower() in TIFF_SUFFIXES
            sizes[path] = read_image_size(path) if is_tiff else png.read_header(path).size_hw
        code = "size-differs"
        check_sizes(image, size_hw, sizes)
    except DatasetError as error:
        on_issue(code, error)
        return None
    return size_hw


def check_sizes(image: Path, size_hw: tuple[int, int], sizes: Mapping[Path, tuple[int, ...]]) -> None:
    """Check that label files have the size of their image.

    Args:
        image: image file, for the message.
        size_hw: (height, width) of the image in pixels.
        sizes: label file -> (height, width) in pixels.

    Raises:
        DatasetError: a size differs.
    """
    if {*sizes.values()} - {tuple(size_hw)}:
        expected, *got = (" x ".join(map(str, size)) for size in (size_hw, *sizes.values()))
        problem = f"expected {expected} pixels (height x width) as {image} has, got {' and '.join(got)}"
        raise DatasetError(problem, where=" and ".join(map(str, sizes)))


def strip_suffix(file_name: str) -> str:
    """Remove the suffix of a path: the files of an image share the rest.

    Args:
        file_name: path with "/".

    Returns:
        The path without the last suffix.
    """
    return PurePosixPath(file_name).with_suffix("").as_posix()


def get_unique_stem(image: DatasetImage, taken: Collection[str], root: Path) -> str:
    """Name the label files of an image after its path without suffix.

    Args:
        image: the image.
        taken: names of earlier images.
        root: the dataset, for messages.

    Returns:
        Path without suffix, with "/".

    Raises:
        UnfitImageError: the name is hidden, too long or taken.
        DatasetError: the name leads out of the folder.
    """
    where = Location(root, image.image_id)
    check_plain_name(image.file_name, where)
    name = strip_suffix(image.file_name)
    check_name_length(f"{PurePosixPath(name).name}{LONGEST_SUFFIX}", where)
    if name in taken:
        raise UnfitImageError(f"an image named {name} was added before", where=where, remedy="rename the image")
    return name


def build_image_path(folder: Path, image: DatasetImage, suffixes: Collection[str] | None = None) -> Path:
    """Where a writer puts an image, under the image's own name.

    Args:
        folder: the image folder of the format.
        image: the image.
        suffixes: suffixes that readers of the format look for; an image with another one becomes a PNG. None if the
            format lists its images by name, so that every name will do.

    Returns:
        A path below the folder.

    Raises:
        UnfitImageError: with `suffixes`, the name is hidden or has a backslash.
        DatasetError: the name leads out of the folder.
    """
    where = Location(folder, image.image_id)
    if suffixes is None:
        check_inside(image.file_name, "file_name", where)
        return folder / image.file_name
    check_plain_name(image.file_name, where)
    path = folder / image.file_name
    return path if path.suffix in suffixes else path.with_suffix(".png")


def check_plain_name(file_name: str, where: Location) -> None:
    """Check that a file name can be found again on every system.

    Args:
        file_name: path with "/".
        where: for the message.

    Raises:
        UnfitImageError: `files_below` skips the name as hidden, or it has a backslash.
        DatasetError: the name leads out of its folder.
    """
    check_inside(file_name, "file_name", where)
    is_hidden = any(part.startswith(".") for part in PurePosixPath(file_name).parts)
    if is_hidden or "\\" in file_name:
        problem = f"expected a file_name without hidden parts and backslashes, got {file_name!r}"
        raise UnfitImageError(problem, where=where, remedy="rename the image")


def check_name_length(name: str, where: Location) -> None:
    """Check that a file name is not too long for a file system.

    Args:
        name: name without folder.
        where: for the message.

    Raises:
        UnfitImageError: it has more than MAX_NAME_BYTES bytes in UTF-8.
    """
    n_bytes = len(name.encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_NAME_BYTES:
        problem = f"expected names of at most {MAX_NAME_BYTES} bytes, got {n_bytes} for {reprlib.repr(name)}"
        raise UnfitImageError(problem, where=where, remedy="rename the image")


def _raise_unlisted(error: OSError) -> None:
    raise DatasetError(f"the folder cannot be listed: {error.strerror}", where=error.filename) from None
