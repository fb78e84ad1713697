"""Image files: do they decode, are they turned, which show the same pixels, which belong to nothing."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from segkit.curation.issues import IssueList, RunAll
from segkit.formats import png
from segkit.formats.image_io import DAMAGED, TURNS, UPRIGHT, is_deep, is_tiff, open_image
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
PNG_KINDS, PNG_DEPTHS = {*png.KINDS.values()}, (1, 2, 4, 8, 16)
DIGEST_BYTES = 16


@dataclass
class ImageInspection:
    """What decoding a picture said. size_hw: turned as EXIF says, None where it does not decode. digest: of its RGB
    pixels, turned and of 8 bits, as `image_io.read_image` has them; None for a picture of one colour, which
    says nothing."""

    issues: IssueList = field(default_factory=IssueList)
    size_hw: tuple[int, int] | None = None
    digest: bytes | None = None
    is_rotated: bool = False


def inspect_image(path: Path, place: object) -> ImageInspection:
    """Decode the whole picture; never raises for what is wrong with the file."""
    look = ImageInspection()
    if os.path.exists(path) and not os.path.isfile(path):
        look.issues.add("image-unreadable", place, "this is a folder or a device, no file")  # a pipe never ends
        return look
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on odd EXIF and big images
            _decode(path, look, place)
    except FileNotFoundError:
        look.issues.add("image-missing", place, "the file does not exist")
    except Image.DecompressionBombError as error:
        look.issues.add("image-bomb", place, str(error))
    except UnidentifiedImageError:
        kind = "a TIFF of a kind that is not read" if is_tiff(path) else "no format that is known"
        look.issues.add("image-unreadable", place, f"the image does not decode: {kind}")
    except DatasetError as error:
        look.issues.add("image-unreadable", place, error.problem)
    except DAMAGED as error:
        look.issues.add("image-unreadable", place, f"the image does not decode: {error}")
    return look


def check_sizes(sizes: Mapping[str, tuple[int, int] | None], turned: bool, place: object, issues: IssueList) -> None:
    """IssueHandler where the sizes that are known differ. sizes: by whose they are. turned: EXIF turns the picture."""
    known = {name: size for name, size in sizes.items() if size is not None}
    if len({*known.values()}) > 1:
        got = ", ".join(f"{name} {height} x {width}" for name, (height, width) in known.items())
        hint = "; EXIF turns the image, the others may fit it as it lies" if turned else ""
        issues.add("size-differs", place, f"expected one size (height x width), got {got}{hint}")


def check_folder(folder: Path, issues: IssueList) -> Path | None:
    """The folder; None with a finding where it is none."""
    if os.path.isdir(folder):
        return folder
    issues.add("folder-missing", folder, "expected a folder, found none")
    return None


def find_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Names of the pictures below the folder, with "/", sorted; hidden ones and linked folders are passed over."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(root).relative_to(folder)
        found += [
            (inside / name).as_posix() for name in names if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)


def find_orphans(folder: Path, known: Collection[str], code: str, suffixes: tuple[str, ...] = SUFFIXES) -> IssueList:
    """Files of the folder that no entry names, as findings of this code."""
    issues = IssueList()
    normal = {PurePath(name).as_posix() for name in known}
    for name in find_images(folder, suffixes):
        if name not in normal:
            issues.add(code, folder / name, "no entry names this file")
    return issues


def find_duplicates(digests: Iterable[tuple[str, bytes | None]]) -> IssueList:
    """Pictures of equal pixels in one split. digests: (path, digest) in the order of the dataset."""
    issues, first = IssueList(), dict[bytes, str]()
    for path, digest in digests:
        if digest is None:
            continue
        other = first.setdefault(digest, path)
        if other != path:
            issues.add("image-twice", path, f"it shows the same pixels as {other}")
    return issues


def find_shared(digests: Iterable[tuple[str, bytes | None]], others: Mapping[bytes, str]) -> IssueList:
    """Pictures whose pixels another split has too. others: as `digests_of` gives them."""
    issues = IssueList()
    for path, digest in digests:
        if digest is not None and digest in others:
            issues.add("image-shared", path, f"it shows the same pixels as {others[digest]} of the other split")
    return issues


def digest_split(against: Path, images: Path, run_all: RunAll) -> dict[bytes, str]:
    """The first picture of every digest of another split.

    against: a folder of pictures, of which those in `pictures`, this split's folder, do not count where it is a part;
    or a COCO JSON, whose pictures are then in `pictures`. Raises DatasetError where it is neither, has no picture, or
    pictures of the JSON are elsewhere.
    """
    if os.path.isfile(against):
        paths = _images_of_json(against, images)
    elif os.path.isdir(against):
        paths = _images_beside(against, images)
    else:
        raise DatasetError("expected a folder of images or a JSON", where=against, remedy="check the path")
    found: dict[bytes, str] = {}
    for path, digest in zip(paths, run_all(_digest, paths), strict=True):
        if digest is not None:
            found.setdefault(digest, str(path))
    return found


def digest_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """Of (H, W, 3) uint8 pixels; None where all are equal."""
    if (pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        return None
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _decode(path: Path, look: ImageInspection, place: object) -> None:
    with path.open("rb") as file, Image.open(file) as image:  # of a path Pillow misreads turned TIFFs
        if image.format == "PNG":
            png.open_image(path, None, PNG_KINDS, PNG_DEPTHS)  # checksums, which Pillow passes over
        deep = is_deep(image)
        decoded = open_image(path)
        # load() turns a TIFF, and forgets it; of a PNG, EXIF may come after the pixels.
        orientation = _orientation(image if deep or image.format == "TIFF" else decoded)
    look.size_hw = decoded.height, decoded.width
    look.is_rotated = orientation in TURNS
    if look.is_rotated:
        look.issues.add("image-turned", place, f"its EXIF orientation is {orientation}")
    if deep:
        look.issues.add("image-deep", place, "its channels have more than 8 bits")
    look.digest = digest_pixels(np.asarray(decoded if decoded.mode == "RGB" else decoded.convert("RGB")))


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except DAMAGED:  # the pixels may well be whole
        return None


def _digest(path: Path) -> bytes | None:
    return inspect_image(path, path).digest


def _images_beside(folder: Path, own: Path) -> list[Path]:
    """The pictures in the folder, but where it holds `own`, those in there."""
    real, own = Path(os.path.realpath(folder)), Path(os.path.realpath(own))
    names = find_images(folder)
    if own.is_relative_to(real):
        names = [name for name in names if not (real / name).is_relative_to(own)]
    if not names:
        remedy = "splits in one folder are parted by their JSONs: give the other's"
        raise DatasetError("expected pictures of another split, found none but this one's", where=folder, remedy=remedy)
    return [folder / name for name in names]


def _images_of_json(path: Path, images: Path) -> list[Path]:
    content = files.load_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DatasetError("expected a COCO JSON with `images`", where=path)
    names = [
        json_fields.get_field(entry, "file_name", json_fields.TEXT, path)
        for entry in json_fields.check_objects(entries, "`images`", path)
    ]
    for name in names:
        json_fields.check_inside(name, "file_name", path)
    paths = [images / name for name in names]
    absent = [found for found in paths if not os.path.isfile(found)]
    if absent:
        problem = f"{len(absent)} of its {len(paths)} images are not in {images}, {absent[0].name} for one"
        raise DatasetError(problem, where=path, remedy="give the folder of its images instead")
    return paths
