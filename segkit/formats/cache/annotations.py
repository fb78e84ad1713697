"""Parsed annotations of large JSON files, kept on disk so that the next start neither parses nor holds them.

A cache entry is a file in `$SEGKIT_CACHE/annotations`, by default `~/.cache/segkit/annotations`. Its lines are JSON:

1. the label: which JSON was parsed, by path and SHA-256, and by which version of segkit,
2. the table: categories, images, the number of annotations of each image,
3. one line for each image: the list of its annotations. They are read when they are asked for.
4. last, the SHA-256 of all lines before.

Every start computes the SHA-256 of the JSON and of the entry. The entry is used only if both and the label agree;
otherwise the JSON is parsed and the entry replaced. Size and date of the files decide nothing. Nothing in an entry is
executed. One flat file measures better than a database: rows need no index but their lengths, a checksum has to read
the whole file anyway, and processes that fork or unpickle may share the open file.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

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

RULES = 3  # raise it with every change of what the readers accept, or of what is stored
SMALLEST_BYTES = 1 << 20  # a smaller JSON is parsed in no time
SUFFIX = ".segkit"
UNUSED_DAYS, LEFT_OVER_DAYS = 7, 1  # entries whose JSON is gone; files of processes that died while writing
LONGEST_LABEL = 1 << 16
BLOCK = 1 << 20  # bytes read at once for a checksum
INSTANCE_KEYS = ("id", "category_id", "bbox", "area", "iscrowd")

log = logging.getLogger(__name__)


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
class _Key:
    """What was parsed: kind of JSON, its real path, the SHA-256 of its bytes."""

    kind: str
    json_path: str
    json_sha256: str

    @property
    def label(self) -> Entry:
        return {**vars(self), "segkit": segkit.__version__, "rules": RULES}

    @property
    def prefix(self) -> str:
        """How the names of all entries of this JSON begin, whatever its content."""
        return f"{self.kind}-{sha256(os.fsencode(self.json_path)).hexdigest()[:16]}-"

    @property
    def entry(self) -> Path:
        return (get_folder() or Path()) / f"{self.prefix}{self.json_sha256}{SUFFIX}"


@dataclass(frozen=True)
class _OpenEntry:
    """An entry that is held open: it stays readable if another file takes its name.

    counts: annotations of each image. ends: byte where each row ends, one more than images; the first is where rows
    begin.
    """

    key: _Key
    categories: CategorySet
    file: BinaryIO
    decode: Callable[[bytes], Any]
    counts: Sequence[int]
    ends: Sequence[int]

    def read_row(self, index: int) -> list[Entry]:
        """The annotations of one image; DatasetError if the open file was cut or changed."""
        start, end = self.ends[index : index + 2]
        try:  # pread, since forked processes would share a position
            row: list[Entry] = self.decode(os.pread(self.file.fileno(), end - start, start))
            if len(row) == self.counts[index]:
                return row
        except Exception:  # of the system, or of the decoder if the file was cut
            pass
        problem = f"bytes {start} to {end} changed while the file was in use"
        raise DatasetError(problem, where=self.key.entry, remedy="start again: the file is then replaced")


class ImageRow(Sequence[Entry]):
    """The annotations of one image, read from the cache at each use.

    A pickled row holds only where to read them.

    Args:
        entry: the open cache entry.
        index: position of the image in the JSON.
    """

    __slots__ = ("_entry", "_index")

    def __init__(self, entry: _OpenEntry, index: int) -> None:
        self._entry = entry
        self._index = index

    @property
    def categories(self) -> CategorySet:
        """The categories of the JSON."""
        return self._entry.categories

    def __len__(self) -> int:
        return self._entry.counts[self._index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entry.read_row(self._index))

    def __getitem__(self, index: Any) -> Any:
        return self._entry.read_row(self._index)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self])

    def __reduce__(self) -> Any:
        return _restore_row, (*vars(self._entry.key).values(), self._index)


def read_instances(json_path: str | Path) -> AnnotatedImages:
    """Read an instances JSON, from the cache if it has the file.

    Args:
        json_path: COCO instances JSON.

    Returns:
        The images and their annotations; equal whether they come from the cache or the JSON.

    Raises:
        DatasetError: as `coco.read_instances`.
    """
    return _read("instances", Path(json_path))


def read_panoptic(json_path: str | Path) -> AnnotatedImages:
    """Read a panoptic JSON, from the cache if it has the file.

    Args:
        json_path: COCO panoptic JSON.

    Returns:
        The images and their segments; equal whether they come from the cache or the JSON.

    Raises:
        DatasetError: as `coco.read_panoptic`.
    """
    return _read("panoptic", Path(json_path))


def get_folder() -> Path | None:
    """The folder of the entries: `annotations` in $SEGKIT_CACHE or ~/.cache/segkit; None without a home folder."""
    try:
        base = Path(os.environ.get("SEGKIT_CACHE") or "~/.cache/segkit").expanduser()
    except RuntimeError:
        return None
    return Path(os.path.abspath(base)) / "annotations"


@files.no_garbage_collection()
def _read(kind: str, path: Path) -> AnnotatedImages:
    key, parse = _build_key(kind, path), _KINDS[kind].parse
    if key is None:
        return parse(path)
    cached = _load(key, path)
    if cached is not None:
        return cached
    parsed = parse(path)
    is_same = key == _build_key(kind, path)  # the file may have been replaced while it was read
    return (is_same and _store(key, parsed) and _load(key, path)) or parsed


def _build_key(kind: str, path: Path) -> _Key | None:
    """None if the JSON is not to be cached: it is small, no regular file, or cannot be read."""
    try:
        if get_folder() is None or not path.is_file() or path.stat().st_size < SMALLEST_BYTES:
            return None
        digest, buffer = sha256(), memoryview(bytearray(BLOCK))
        with FileIO(path) as file:
            while n_bytes := file.readinto(buffer):
                digest.update(buffer[:n_bytes])
        return _Key(kind, os.path.realpath(path), digest.hexdigest())
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None


def _load(key: _Key, path: Path) -> AnnotatedImages | None:
    """What the entry holds; None if there is no entry, or it is damaged or of something else."""
    try:
        if not key.entry.is_file():  # opening a pipe would wait
            return None
        file = key.entry.open("rb", buffering=BLOCK)  # closed with the entry
        label, table, ends = _read_lines(file)
        if label != key.label:
            return None
        categories = CategorySet.from_coco(table["categories"], path)
        entry = _OpenEntry(key, categories, file, _KINDS[key.kind].decode, table["counts"], ends)
        used = frozenset(table["category_ids"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DatasetError):
        return None
    with suppress(OSError):
        os.utime(key.entry)  # the entry is in use: see `_remove_old`
    _open_entries[key] = entry
    rows = [ImageRow(entry, index) for index in range(len(ends) - 1)]
    return AnnotatedImages(path, categories, table["images"], rows, used)


def _read_lines(file: BinaryIO) -> tuple[Entry, Entry, list[int]]:
    """Label, table, and where the rows begin and end; ValueError if the checksum is wrong."""
    label, table = file.readline(), file.readline()
    digest, ends, content = sha256(label + table), [len(label + table)], json.loads(table)
    for _ in content["counts"]:
        row = file.readline()
        digest.update(row)
        ends.append(ends[-1] + len(row))
    if file.read() != digest.hexdigest().encode():
        raise ValueError("expected the checksum of the content, got another")
    return json.loads(label), content, ends


def _store(key: _Key, parsed: AnnotatedImages) -> bool:
    """Whether the entry was written; a full or read-only disk is logged once, and is no error."""
    table = {
        "categories": parsed.categories.to_coco(),
        "images": parsed.images,
        "counts": [*map(len, parsed.annotations)],
        "category_ids": sorted(parsed.category_ids),
    }
    digest, folder = sha256(), key.entry.parent
    try:
        with files.replacing(key.entry) as neighbour, neighbour.open("wb") as file:
            for line in chain(map(_encode_any, (key.label, table)), map(_KINDS[key.kind].encode, parsed.annotations)):
                digest.update(line + b"\n")
                file.write(line + b"\n")
            file.write(digest.hexdigest().encode())
    except (OSError, ValueError, RecursionError) as error:
        if folder not in _warned:
            remedy = "SEGKIT_CACHE can name another folder"
            log.warning("parsed annotations are not cached in %s (%s): %s", folder, remedy, error)
        _warned.add(folder)
        return False
    _remove_old(key)
    return True


def _remove_old(key: _Key) -> None:
    """Remove what the entry replaces, and what nobody will use. Other processes may do the same at the same time."""
    for path in key.entry.parent.iterdir():
        with suppress(OSError, ValueError, KeyError, TypeError):
            days = (time.time() - path.stat().st_mtime) / 86400
            if path.suffix == ".tmp" and days > LEFT_OVER_DAYS:
                path.unlink()
            elif path.suffix == SUFFIX and path != key.entry:
                is_unused = days > UNUSED_DAYS and not os.path.exists(_read_label(path)["json_path"])
                if is_unused or path.name.startswith(key.prefix):
                    path.unlink()


def _read_label(path: Path) -> Any:
    with path.open("rb") as file:
        return json.loads(file.readline(LONGEST_LABEL))


_warned: set[Path] = set()
_open_entries: dict[_Key, _OpenEntry] = {}  # of this process, for rows that are unpickled


def _restore_row(kind: str, json_path: str, json_sha256: str, index: int) -> ImageRow:
    key, path = _Key(kind, json_path, json_sha256), Path(json_path)
    if key not in _open_entries and _load(key, path) is None:  # the entry is gone, but the JSON may be as it was
        _read(kind, path)
    if key in _open_entries:
        return ImageRow(_open_entries[key], index)
    problem = "the parsed annotations are gone from the cache, and the JSON has changed"
    raise DatasetError(problem, where=path, remedy="start again")


def _parse_instances(path: Path) -> AnnotatedImages:
    file = coco.read_instances(path)
    by_image: dict[Any, list[Entry]] = {image["id"]: [] for image in file.images}
    used = set()
    for annotation in file.annotations:
        used.add(annotation["category_id"])
        stored = {key: annotation[key] for key in INSTANCE_KEYS}
        segmentation = annotation["segmentation"]
        if type(segmentation) is dict:
            segmentation = {"size": segmentation["size"], "counts": segmentation["counts"]}
        by_image[annotation["image_id"]].append({**stored, "segmentation": segmentation})
    images = [{key: image[key] for key in ("id", "file_name", "height", "width")} for image in file.images]
    return AnnotatedImages(path, file.categories, images, [*by_image.values()], frozenset(used))


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


@dataclass(frozen=True)
class _Kind:
    """How a kind of JSON is parsed, and how rows become one line of JSON and come back to the last bit."""

    parse: Callable[[Path], AnnotatedImages]
    encode: Callable[[Any], bytes] = _encode_any
    decode: Callable[[bytes], Any] = json.loads


# msgspec (the extra `fast`) is several times faster, but writes NaN as null and refuses half of a surrogate pair: both
# may be in a panoptic JSON, whose keys are all kept.
_FAST = () if msgspec is None else (msgspec.json.encode, msgspec.json.decode)
_KINDS = {"instances": _Kind(_parse_instances, *_FAST), "panoptic": _Kind(_parse_panoptic)}
