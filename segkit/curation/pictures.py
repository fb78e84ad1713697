"""Image files: do they decode, are they turned, which show the same pixels, which belong to nothing."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from segkit.curation.findings import Findings, RunAll
from segkit.formats import files, png
from segkit.formats.pictures import DEEP_MODES, SWAPPING, UPRIGHT, is_deep, is_tiff, open_picture, picture_size
from segkit.structures import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
PNG_KINDS, PNG_DEPTHS = {*png.KINDS.values()}, (1, 2, 4, 8, 16)
DIGEST_BYTES = 16
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError)


@dataclass
class Look:
    """What decoding a picture said. size_hw: turned as EXIF says, None where it does not decode. digest: of its pixels,
    None too for a picture of one colour, which says nothing."""

    findings: Findings = field(default_factory=Findings)
    size_hw: tuple[int, int] | None = None
    digest: bytes | None = None
    turned: bool = False


def look_at(path: Path, place: object) -> Look:
    """Decode the whole picture; never raises for what is wrong with the file."""
    look = Look()
    if os.path.exists(path) and not os.path.isfile(path):
        look.findings.tell("image-unreadable", place, "this is a folder or a device, no file")  # a pipe never ends
        return look
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on odd EXIF and big images
            _decode(path, look, place)
    except FileNotFoundError:
        look.findings.tell("image-missing", place, "the file does not exist")
    except Image.DecompressionBombError as error:
        look.findings.tell("image-bomb", place, str(error))
    except UnidentifiedImageError:
        kind = "a TIFF of a kind that is not read" if is_tiff(path) else "no format that is known"
        look.findings.tell("image-unreadable", place, f"the image does not decode: {kind}")
    except (DatasetError, *DAMAGED) as error:
        look.findings.tell("image-unreadable", place, f"the image does not decode: {error}")
    return look


def compare_sizes(sizes: Mapping[str, tuple[int, int] | None], turned: bool, place: object, findings: Findings) -> None:
    """Tell where the sizes that are known differ. sizes: by whose they are. turned: EXIF turns the picture."""
    known = {name: size for name, size in sizes.items() if size is not None}
    if len({*known.values()}) > 1:
        got = ", ".join(f"{name} {height} x {width}" for name, (height, width) in known.items())
        hint = "; EXIF turns the image, the others may fit it as it lies" if turned else ""
        findings.tell("size-differs", place, f"expected one size (height x width), got {got}{hint}")


def existing(folder: Path, findings: Findings) -> Path | None:
    """The folder; None with a finding where it is none."""
    if os.path.isdir(folder):
        return folder
    findings.tell("folder-missing", folder, "expected a folder, found none")
    return None


def find_pictures(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Names of the pictures below the folder, with "/", sorted; hidden ones and linked folders are passed over."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(root).relative_to(folder)
        found += [
            (inside / name).as_posix() for name in names if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)


def orphans(folder: Path, known: Collection[str], code: str, suffixes: tuple[str, ...] = SUFFIXES) -> Findings:
    """Files of the folder that no entry names, as findings of this code."""
    findings = Findings()
    normal = {os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/") for name in known}
    for name in find_pictures(folder, suffixes):
        if name not in normal:
            findings.tell(code, folder / name, "no entry names this file")
    return findings


def twice(digests: Iterable[tuple[str, bytes | None]]) -> Findings:
    """Pictures of equal pixels in one split. digests: (path, digest) in the order of the dataset."""
    findings, first = Findings(), dict[bytes, str]()
    for path, digest in digests:
        if digest is None:
            continue
        other = first.setdefault(digest, path)
        if other != path:
            findings.tell("image-twice", path, f"it shows the same pixels as {other}")
    return findings


def shared(digests: Iterable[tuple[str, bytes | None]], others: Mapping[bytes, str]) -> Findings:
    """Pictures whose pixels another split has too. others: as `digests_of` gives them."""
    findings = Findings()
    for path, digest in digests:
        if digest is not None and digest in others:
            findings.tell("image-shared", path, f"it shows the same pixels as {others[digest]} of the other split")
    return findings


def digests_of(against: Path, pictures: Path, run_all: RunAll) -> dict[bytes, str]:
    """The first picture of every digest of another split.

    against: a folder of pictures; or a COCO JSON, whose pictures are then in `pictures`, this split's folder.
    Raises DatasetError where it is neither, or pictures of the JSON are elsewhere.
    """
    paths = _pictures_of_json(against, pictures) if os.path.isfile(against) else []
    if os.path.isdir(against):
        if os.path.isdir(pictures) and os.path.samefile(against, pictures):
            remedy = "splits in one folder are parted by their JSONs: give the other's"
            raise DatasetError("the other split has the same folder of images", where=against, remedy=remedy)
        paths = [against / name for name in find_pictures(against)]
    elif not os.path.isfile(against):
        raise DatasetError("expected a folder of images or a JSON", where=against, remedy="check the path")
    found: dict[bytes, str] = {}
    for path, digest in zip(paths, run_all(_digest, paths), strict=True):
        if digest is not None:
            found.setdefault(digest, str(path))
    return found


def digest_of(pixels: NDArray[np.uint8]) -> bytes | None:
    """Of (H, W, 3) uint8 pixels of a picture that has no file; None where all are equal."""
    if (pixels == pixels[:1, :1]).all():
        return None
    return hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=DIGEST_BYTES).digest()


def _decode(path: Path, look: Look, place: object) -> None:
    with path.open("rb") as file, Image.open(file) as image:  # of a path Pillow misreads turned TIFFs
        if image.format == "PNG":
            png.open_image(path, None, PNG_KINDS, PNG_DEPTHS)  # checksums, which Pillow passes over
        deep = is_deep(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)  # load() turns a TIFF, and forgets it
        if deep or image.format == "TIFF":
            open_picture(path)  # which refuses some that Pillow decodes
        image.load()
        look.size_hw = picture_size(path)
        look.turned = orientation in range(UPRIGHT + 1, max(SWAPPING) + 1)
        if look.turned:
            look.findings.tell("image-turned", place, f"its EXIF orientation is {orientation}")
        if deep:
            look.findings.tell("image-deep", place, "its channels have more than 8 bits")
        look.digest = _digest_of(image)


def _digest_of(image: Image.Image) -> bytes | None:
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        flat, content = bool((values == values[0, 0]).all()), values.tobytes()
    else:
        extrema = image.getextrema()
        flat = all(low == high for low, high in (extrema if isinstance(extrema[0], tuple) else (extrema,)))
        content = b"" if flat else image.tobytes()
    if flat:
        return None
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=DIGEST_BYTES)
    digest.update(bytes(image.getpalette() or ()) if image.mode == "P" else b"")
    digest.update(content)
    return digest.digest()


def _digest(path: Path) -> bytes | None:
    return look_at(path, path).digest


def _pictures_of_json(path: Path, pictures: Path) -> list[Path]:
    content = files.load_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DatasetError("expected a COCO JSON with `images`", where=path)
    names = [entry.get("file_name") for entry in entries if isinstance(entry, dict)]
    paths = [pictures / name for name in names if isinstance(name, str) and "\0" not in name]
    absent = [found for found in paths if not os.path.isfile(found)]
    if absent:
        problem = f"{len(absent)} of its {len(paths)} images are not in {pictures}, {absent[0].name} for one"
        raise DatasetError(problem, where=path, remedy="give the folder of its images instead")
    return paths
