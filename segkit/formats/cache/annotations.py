"""Parsed annotations of large JSON files, kept on disk so that the next start neither parses nor holds them.

A cache entry is a file in `$SEGKIT_CACHE/annotations`, by default `~/.cache/segkit/annotations`. Its lines are JSON:

1. the header: the SHA-256 of the JSON and the version of segkit that parsed it, then categories, images and the number
   of annotations of each image,
2. one line for each image: the list of its annotations. They are read when they are asked for.
3. last, the SHA-256 of all lines before.

Every start computes the SHA-256 of the JSON and of the entry. The entry is used only if both and the version agree;
otherwise the JSON is parsed and the entry replaced. Size and date of the files decide nothing. Nothing in an entry is
executed. One flat file measures better than a database: rows need no index but their lengths, a checksum has to read
the whole file anyway, and processes that fork or unpickle may share the open file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

import segkit
from segkit.formats import coco
from segkit.structures import CategorySet
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

RULES = 4  # raise it with every change of what the readers accept, or of what is stored
SMALLEST_BYTES = 1 << 20  # a smaller JSON is parsed in no time
SUFFIX = ".segkit"
# An older file is removed: an entry that was not used for so long, or the file of a process that died while writing.
MAX_AGE_DAYS = {SUFFIX: 30, ".tmp": 1}
BLOCK = 1 << 20  # bytes read at once for a checksum
IMAGE_KEYS = ("id", "file_name", "height", "width")
INSTANCE_KEYS = ("id", "category_id", "bbox", "area", "iscrowd", "segmentation")

log = logging.getLogger(__name__)
_warned: set[Path] = set()


@dataclass(frozen=True)
class AnnotatedImages:
    """A validated COCO JSON, by image, in the file's order.

    Attributes:
        path: the JSON.
        categories: the categories of the JSON.
        images: one `{id, file_name, height, width}` for each image; of a panoptic JSON also `png_name`.
        annotations: for each image its objects in the file's order: a list, or an `ImageRow` with the same values.
            Objects of an instances JSON have id, category_id, bbox, area, iscrowd and segmentation; those of a
            panoptic JSON have all keys of `segments_info`.
        category_ids: the category ids that annotations have.
    """

    path: Path
    categories: CategorySet
    images: Sequence[Entry]
    annotations: Sequence[Sequence[Entry]]
    category_ids: frozenset[int]


@dataclass(frozen=True)
class _OpenEntry:
    """An entry that is held open: it stays readable if another file takes its name.

    counts: annotations of each image. ends: byte where each row ends, one more than images; the first is where rows
    begin.
    """

    path: Path
    file: BinaryIO
    decode: Callable[[bytes], Any]
    counts: Sequence[int]
    ends: Sequence[int]
    lock: Lock = field(default_factory=Lock)

    def read_row(self, index: int) -> list[Entry]:
        """The annotations of one image; DatasetError if the open file was cut or changed."""
        start, end = self.ends[index : index + 2]
        try:
            row: list[Entry] = self.decode(self._read_bytes(start, end - start))
            if len(row) == self.counts[index]:
                return row
        except Exception:  # of the system, or of the decoder if the file was cut
            pass
        problem = f"bytes {start} to {end} changed while the file was in use"
        raise DatasetError(problem, where=self.path, remedy="start again: the file is then replaced")

    def _read_bytes(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):  # needs no position, which forked processes would share
            return os.pread(self.file.fileno(), count, start)
        with self.lock:  # Windows has no pread, and no fork
            os.lseek(self.file.fileno(), start, os.SEEK_SET)
            return os.read(self.file.fileno(), count)


class ImageRow(Sequence[Entry]):
    """The annotations of one image, read from the cache at each use. A pickled row becomes a list.

    Args:
        entry: the open cache entry.
        index: position of the image in the JSON.
    """

    __slots__ = ("_entry", "_index")

    def __init__(self, entry: _OpenEntry, index: int) -> None:
        self._entry = entry
        self._index = index

    def __len__(self) -> int:
        return self._entry.counts[self._index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entry.read_row(self._index))

    def __getitem__(self, index: Any) -> Any:
        return self._entry.read_row(self._index)[index]

    def __reduce__(self) -> Any:
        return list, ([*self],)


def read_instances(json_path: str | Path) -> AnnotatedImages:
    """Read an instances JSON, from the cache if it has the file.

    Args:
        json_path: COCO instances JSON.

    Returns:
        The images and their annotations; equal whether they come from the cache or the JSON.

    Raises:
        DatasetError: as `coco.read_instances`.
    """
    return _read(_INSTANCES, Path(json_path))


def read_panoptic(json_path: str | Path) -> AnnotatedImages:
    """Read a panoptic JSON, from the cache if it has the file.

    Args:
        json_path: COCO panoptic JSON.

    Returns:
        The images and their segments; equal whether they come from the cache or the JSON.

    Raises:
        DatasetError: as `coco.read_panoptic`.
    """
    return _read(_PANOPTIC, Path(json_path))


@files.no_garbage_collection()
def _read(kind: _Kind, path: Path) -> AnnotatedImages:
    entry = _describe_entry(kind, path)
    if entry is None:
        return kind.parse(path)
    cached = _load(kind, path, *entry)
    if cached is not None:
        return cached
    parsed = kind.parse(path)
    is_same = entry == _describe_entry(kind, path)  # the file may have been replaced while it was read
    return (is_same and _store(kind, parsed, *entry) and _load(kind, path, *entry)) or parsed


def _describe_entry(kind: _Kind, path: Path) -> tuple[Path, Entry] | None:
    """Path and label of the entry for a JSON; None if the JSON is small, no regular file, or cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size < SMALLEST_BYTES:
            return None
        digest = sha256()
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
        path_digest = sha256(os.fsencode(os.path.realpath(path))).hexdigest()
        entry_path = _get_folder() / f"{kind.name}-{path_digest[:32]}{SUFFIX}"
    except (OSError, ValueError, RuntimeError):  # ValueError: a NUL in the name; RuntimeError: no home folder
        return None
    label = {"kind": kind.name, "json_sha256": digest.hexdigest(), "segkit": segkit.__version__, "rules": RULES}
    return entry_path, label


def _get_folder() -> Path:
    base = Path(os.environ.get("SEGKIT_CACHE") or "~/.cache/segkit").expanduser()
    return Path(os.path.abspath(base)) / "annotations"


def _load(kind: _Kind, path: Path, entry_path: Path, label: Entry) -> AnnotatedImages | None:
    """What the entry holds; None if there is no entry, or it is damaged or has another label."""
    try:
        if not entry_path.is_file():  # opening a pipe would wait
            return None
        file = entry_path.open("rb", buffering=BLOCK)  # closed with the entry
        line = file.readline()
        header, digest, ends = json.loads(line), sha256(line), [len(line)]
        if header["label"] != label:
            return None
        for _ in header["counts"]:
            line = file.readline()
            digest.update(line)
            ends.append(ends[-1] + len(line))
        if file.read() != digest.hexdigest().encode():
            return None
        entry = _OpenEntry(entry_path, file, kind.decode, header["counts"], ends)
        rows = [ImageRow(entry, index) for index in range(len(ends) - 1)]
        categories = CategorySet.from_coco(header["categories"], path)
        annotated = AnnotatedImages(path, categories, header["images"], rows, frozenset(header["category_ids"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DatasetError):
        return None
    with suppress(OSError):
        os.utime(entry_path)  # the entry is in use: see `_remove_old`
    return annotated


def _store(kind: _Kind, parsed: AnnotatedImages, entry_path: Path, label: Entry) -> bool:
    """Whether the entry was written; a full or read-only disk is logged once, and is no error."""
    header = {
        "label": label,
        "categories": parsed.categories.to_coco(),
        "images": parsed.images,
        "counts": [*map(len, parsed.annotations)],
        "category_ids": sorted(parsed.category_ids),
    }
    digest, folder = sha256(), entry_path.parent
    try:
        with files.replacing(entry_path) as neighbour, neighbour.open("wb") as file:
            for line in chain([_encode_any(header)], map(kind.encode, parsed.annotations)):
                digest.update(line + b"\n")
                file.write(line + b"\n")
            file.write(digest.hexdigest().encode())
    except (OSError, ValueError, RecursionError, DatasetError) as error:
        if folder not in _warned:
            remedy = "SEGKIT_CACHE can name another folder"
            log.warning("parsed annotations are not cached in %s (%s): %s", folder, remedy, error)
        _warned.add(folder)
        return False
    _remove_old(folder)
    return True


def _remove_old(folder: Path) -> None:
    """Remove the files that are older than `MAX_AGE_DAYS`. Other processes may do the same at the same time."""
    for path in folder.iterdir():
        with suppress(OSError):
            days = (time.time() - path.stat().st_mtime) / 86400
            if days > MAX_AGE_DAYS.get(path.suffix, math.inf):
                path.unlink()


def _parse_instances(path: Path) -> AnnotatedImages:
    file = coco.read_instances(path)
    by_image: dict[Any, list[Entry]] = {image["id"]: [] for image in file.images}
    for annotation in file.annotations:
        stored = {key: annotation[key] for key in INSTANCE_KEYS}
        if type(stored["segmentation"]) is dict:
            stored["segmentation"] = {key: stored["segmentation"][key] for key in ("size", "counts")}
        by_image[annotation["image_id"]].append(stored)
    images = [{key: image[key] for key in IMAGE_KEYS} for image in file.images]
    used = frozenset(annotation["category_id"] for annotation in file.annotations)
    return AnnotatedImages(path, file.categories, images, [*by_image.values()], used)


def _parse_panoptic(path: Path) -> AnnotatedImages:
    file = coco.read_panoptic(path)
    images = [
        {"id": r.image_id, "file_name": r.file_name, "height": r.height, "width": r.width, "png_name": r.png_name}
        for r in file.records
    ]
    annotations = [r.segments_info for r in file.records]
    used = frozenset(info["category_id"] for infos in annotations for info in infos)
    return AnnotatedImages(path, file.categories, images, annotations, used)


def _encode_any(row: Any) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode("ascii")


class _Kind(NamedTuple):
    """How a kind of JSON is parsed, and how rows become one line of JSON and come back to the last bit."""

    name: str
    parse: Callable[[Path], AnnotatedImages]
    encode: Callable[[Any], bytes] = _encode_any
    decode: Callable[[bytes], Any] = json.loads


# msgspec (the extra `fast`) is several times faster, but writes NaN as null and refuses half of a surrogate pair: both
# may be in a panoptic JSON, whose keys are all kept.
_FAST = () if msgspec is None else (msgspec.json.encode, msgspec.json.decode)
_INSTANCES, _PANOPTIC = _Kind("instances", _parse_instances, *_FAST), _Kind("panoptic", _parse_panoptic)
