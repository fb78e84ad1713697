"""Checks of image files: damage, EXIF orientation, size, equal images, and files that no entry names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError

from segkit.curation.issues import IssueList, RunAll
from segkit.formats import png
from segkit.formats.image_io import DAMAGED, TRANSPOSES, UPRIGHT, is_deep, is_tiff, open_image
from segkit.formats.pixel_limit import open_pillow
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames, explain_missing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
PNG_KINDS, PNG_DEPTHS = {*png.KINDS.values()}, (1, 2, 4, 8, 16)
DIGEST_BYTES = 16
ImageDigest: TypeAlias = tuple[str, bytes | None]  # path of an image, and its digest if it has one
Item = TypeVar("Item")


@dataclass
class ImageInspection:
    """The result of decoding an image file.

    Attributes:
        issues: What is wrong with the file.
        size_hw: (height, width) after the rotation that EXIF demands; None if the file does not decode.
        digest: Hash of the pixels that `image_io.read_image` returns; None for an image of one colour, which may
            equal another one by chance.
        is_rotated: Whether EXIF rotates or mirrors the image.
    """

    issues: IssueList = field(default_factory=IssueList)
    size_hw: tuple[int, int] | None = None
    digest: bytes | None = None
    is_rotated: bool = False


def inspect_image(path: Path, place: object) -> ImageInspection:
    """Decode a whole image and collect everything that is wrong with the file.

    Args:
        path: The image file.
        place: Location for the issues.

    Returns:
        Issues, size and digest; this function does not raise for damaged files.
    """
    inspection = ImageInspection()
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would never end
        inspection.issues.add("image-unreadable", place, "this is a folder or a device, not a file")
        return inspection
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about odd EXIF and large images
            _decode(path, inspection, place)
    except FileNotFoundError:
        inspection.issues.add("image-missing", place, f"the file does not exist{explain_missing(path)}")
    except UnidentifiedImageError:
        kind = "a TIFF of an unsupported kind" if is_tiff(path) else "unknown file format"
        inspection.issues.add("image-unreadable", place, f"the image does not decode: {kind}")
    except DatasetError as error:
        inspection.issues.add(error.code or "image-unreadable", place, error.problem)
    except DAMAGED as error:
        inspection.issues.add("image-unreadable", place, f"the image does not decode: {error}")
    return inspection


def check_sizes(
    sizes: Mapping[str, tuple[int, int] | None], is_rotated: bool, place: object, issues: IssueList
) -> None:
    """Report sizes that differ.

    Args:
        sizes: Name of each source -> (height, width), None if unknown.
        is_rotated: Whether EXIF rotates the image, which may explain the difference.
        place: Location for the issue.
        issues: Gets the issue.
    """
    known_sizes = {name: size for name, size in sizes.items() if size is not None}
    if len({*known_sizes.values()}) > 1:
        got = ", ".join(f"{name} {height} x {width}" for name, (height, width) in known_sizes.items())
        hint = "; EXIF rotates the image, the other sizes may be those before the rotation" if is_rotated else ""
        issues.add("size-differs", place, f"expected one size (height x width), got {got}{hint}")


def check_folder(folder: Path, issues: IssueList) -> Path | None:
    """Report a folder that does not exist.

    Args:
        folder: The folder.
        issues: Gets the issue.

    Returns:
        The folder, None if it does not exist.
    """
    if os.path.isdir(folder):
        return folder
    issues.add("folder-missing", folder, "expected a folder, found none")
    return None


def find_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """List the image files below a folder; hidden files and folders and linked folders are skipped.

    Args:
        folder: The folder.
        suffixes: Suffixes of image files, lower case.

    Returns:
        Paths relative to the folder, with "/", sorted.
    """
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
        paths += [Path(root, name).relative_to(folder).as_posix() for name in images]
    return sorted(paths)


def find_orphans(folder: Path, known: Collection[str], code: str, suffixes: tuple[str, ...] = SUFFIXES) -> IssueList:
    """Report the image files that no entry names.

    Args:
        folder: The folder.
        known: Names that entries have, relative to the folder.
        code: Code of the issues.
        suffixes: Suffixes of image files, lower case.

    Returns:
        One issue per file.
    """
    issues = IssueList()
    normalized = {PurePath(name).as_posix() for name in known}
    for name in find_images(folder, suffixes):
        if name not in normalized:
            issues.add(code, folder / name, "no entry names this file")
    return issues


def find_equal_images(digests: Sequence[ImageDigest], others: Mapping[bytes, str]) -> IssueList:
    """Report images of one split with equal pixels, then images whose pixels another split has too.

    Args:
        digests: (path, digest) in the order of the dataset.
        others: Digest -> path of the other split, as `index_digests` returns them.

    Returns:
        One issue per image that equals an earlier one, and one per image that the other split has.
    """
    issues, first_paths = IssueList(), index_digests(digests)
    for path, digest in digests:
        if digest is not None and first_paths[digest] != path:
            issues.add("image-twice", path, f"it shows the same pixels as {first_paths[digest]}")
    for path, digest in digests:
        if digest is not None and digest in others:
            issues.add("image-shared", path, f"it shows the same pixels as {others[digest]} of the other split")
    return issues


def index_digests(digests: Iterable[ImageDigest]) -> dict[bytes, str]:
    """Map each digest to the first path with it.

    Args:
        digests: (path, digest or None).

    Returns:
        Digest -> path.
    """
    first_paths: dict[bytes, str] = {}
    for path, digest in digests:
        if digest is not None:
            first_paths.setdefault(digest, path)
    return first_paths


def run_checks(
    check: Callable[[Item], tuple[IssueList, ImageDigest]], items: Sequence[Item], run_all: RunAll, issues: IssueList
) -> list[ImageDigest]:
    """Check all items.

    Args:
        check: Gives the issues of an item, and path and digest of its image.
        items: Images or annotations, in the order of the dataset.
        run_all: `map`, or a parallel one.
        issues: Gets the issues.

    Returns:
        Path and digest of each image.
    """
    digests = []
    for item_issues, digest in run_all(check, items):
        issues += item_issues
        digests.append(digest)
    return digests


def digest_split(against: str | Path, images: str | Path, run_all: RunAll) -> dict[bytes, str]:
    """Compute the digests of another split's images.

    Args:
        against: The other split: an image folder, or a COCO JSON whose images are in `images`.
        images: The image folder of this split. If it is inside `against`, its images do not count.
        run_all: `map`, or a parallel one.

    Returns:
        Digest -> path of the first image with it.

    Raises:
        DatasetError: `against` is neither, has no image, or images of the JSON are missing.
    """
    against, images = Path(against), Path(images)
    if os.path.isfile(against):
        paths = _list_images_of_json(against, images)
    elif os.path.isdir(against):
        paths = _list_images_outside(against, images)
    else:
        raise DatasetError("expected a folder of images or a JSON", where=against, remedy="check the path")
    return index_digests(zip(map(str, paths), run_all(_digest_file, paths), strict=True))


def digest_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """Compute the digest of an image.

    Args:
        pixels: (H, W, C) uint8, not empty.

    Returns:
        Hash of size and pixels; None if all pixels are equal.
    """
    if (pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        return None
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _decode(path: Path, inspection: ImageInspection, place: object) -> None:
    with path.open("rb") as file, open_pillow(file, path) as image:  # from a path, Pillow misreads rotated TIFFs
        if image.format == "PNG":
            png.open_image(path, None, PNG_KINDS, PNG_DEPTHS)  # checks the checksums, which Pillow ignores
        deep = is_deep(image)
        decoded = open_image(path)
        # Pillow rotates a TIFF while decoding and drops the tag; in a PNG, EXIF may come after the pixels.
        orientation = None
        with contextlib.suppress(*DAMAGED):  # of the EXIF; the pixels may still be undamaged
            exif = (image if deep or image.format == "TIFF" else decoded).getexif()
            orientation = exif.get(ExifTags.Base.Orientation, UPRIGHT)
    inspection.size_hw = decoded.height, decoded.width
    inspection.is_rotated = orientation in TRANSPOSES
    if inspection.is_rotated:
        inspection.issues.add("image-rotated", place, f"its EXIF orientation is {orientation}")
    if deep:
        inspection.issues.add("image-deep", place, "its channels have more than 8 bits")
    inspection.digest = digest_pixels(np.asarray(decoded if decoded.mode == "RGB" else decoded.convert("RGB")))


def _digest_file(path: Path) -> bytes | None:
    return inspect_image(path, path).digest


def _list_images_outside(folder: Path, excluded: Path) -> list[Path]:
    """The images in the folder; if `excluded` is inside the folder, without its images."""
    real, excluded = Path(os.path.realpath(folder)), Path(os.path.realpath(excluded))
    names = find_images(folder)
    if excluded.is_relative_to(real):
        names = [name for name in names if not (real / name).is_relative_to(excluded)]
    if not names:
        problem = "expected images of another split, got only those of this split"
        remedy = "if both splits are in one folder, give the JSON of the other split"
        raise DatasetError(problem, where=folder, remedy=remedy)
    return [folder / name for name in names]


def _list_images_of_json(path: Path, images: Path) -> list[Path]:
    content = files.load_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DatasetError("expected a COCO JSON with `images`", where=path)
    paths, names = [], FolderNames(images)
    for entry in json_fields.check_objects(entries, "`images`", path):
        name = json_fields.get_field(entry, "file_name", json_fields.TEXT, path)
        json_fields.check_inside(name, "file_name", path)
        paths.append(images / names.resolve(name))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        problem = f"{len(missing)} of its {len(paths)} images are not in {images}, e.g. {missing[0].name}"
        raise DatasetError(problem, where=path, remedy="give the folder of its images instead")
    return paths
