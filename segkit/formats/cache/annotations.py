"""Parsed annotations of large JSON files, kept so that the next start neither parses nor holds them.

A cache entry is a file of `stored_rows` in `$SEGKIT_CACHE/annotations`, by default `~/.cache/segkit/annotations`. It is
used only where the SHA-256 of the JSON's bytes, which is computed at every start, the version of segkit and the entry's
own checksum agree; where one does not, the JSON is read again and the entry replaced. Size and date decide nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

import segkit
from segkit.formats import coco
from segkit.formats.cache import stored_rows
from segkit.structures import CategorySet
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

RULES = 2  # to be raised with every change of what the readers accept, or of what is stored
SMALLEST_BYTES = 1 << 20  # a smaller JSON is read in no time, and fills no cache
SUFFIX = ".segkit"
UNUSED_DAYS, LEFT_OVER_DAYS = 7, 1  # entries whose JSON is gone; files of processes that died while writing
INSTANCE_KEYS = ("id", "category_id", "bbox", "area", "iscrowd")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedImages:
    """A validated JSON, by image, in the file's order.

    images: `{id, file_name, height, width}` each, of a panoptic JSON also `png_name`. annotations: of each image, its
    objects in the file's order: a list, or an `ImageRow` that reads them when they are asked for, with the same
    values. Of instances they have id, category_id, bbox, area, iscrowd and segmentation, of a panoptic JSON the keys of
    `segments_info` as in the file. category_ids: those that annotations have.
    """

    path: Path
    categories: CategorySet
    images: Sequence[Entry]
    annotations: Sequence[Sequence[Entry]]
    category_ids: frozenset[int]


@dataclass(frozen=True)
class _Kind:
    parse: Callable[[Path], AnnotatedImages]
    coding: stored_rows.Coding


@dataclass(frozen=True)
class _Key:
    kind: str
    json_path: str
    json_sha256: str

    @property
    def label(self) -> Entry:
        return {**vars(self), "segkit": segkit.__version__, "rules": RULES}


@dataclass(frozen=True)
class _Source:
    key: _Key
    categories: CategorySet
    rows: stored_rows.StoredRows


class ImageRow(Sequence[Entry]):
    """The annotations of one image, read from the cache at each use; pickled, it is the place where to read them."""

    __slots__ = ("_index", "_source")

    def __init__(self, source: _Source, index: int) -> None:
        self._source = source
        self._index = index

    @property
    def categories(self) -> CategorySet:
        """Those of the JSON."""
        return self._source.categories

    def __len__(self) -> int:
        return self._source.rows.counts[self._index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._source.rows[self._index])

    def __getitem__(self, index: Any) -> Any:
        return self._source.rows[self._index][index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self])

    def __reduce__(self) -> Any:
        return _row_again, (*vars(self._source.key).values(), self._index)


def read_instances(json_path: str | Path) -> AnnotatedImages:
    """The images and annotations of an instances JSON; DatasetError as `coco.read_instances` has it."""
    return _read("instances", Path(json_path))


def read_panoptic(json_path: str | Path) -> AnnotatedImages:
    """The images and segments of a panoptic JSON; DatasetError as `coco.read_panoptic` has it."""
    return _read("panoptic", Path(json_path))


def folder() -> Path | None:
    """Where entries lie: `annotations` in $SEGKIT_CACHE or ~/.cache/segkit; None where there is no home either."""
    try:
        base = Path(os.environ.get("SEGKIT_CACHE") or "~/.cache/segkit").expanduser()
    except RuntimeError:
        return None
    return Path(os.path.abspath(base)) / "annotations"


@files.no_garbage_collection()
def _read(kind: str, path: Path) -> AnnotatedImages:
    key, parse = _key_of(kind, path), _KINDS[kind].parse
    if key is None:
        return parse(path)
    found = _load(key, path)
    if found is not None:
        return found
    parsed = parse(path)
    if key == _key_of(kind, path) and _store(key, parsed):  # else the file was replaced while it was read
        return _load(key, path) or parsed
    return parsed


def _key_of(kind: str, path: Path) -> _Key | None:
    """None where the JSON is not to be cached: small, no regular file, or for its reader to complain about."""
    try:
        if folder() is None or not path.is_file() or path.stat().st_size < SMALLEST_BYTES:
            return None
        with FileIO(path) as file:
            return _Key(kind, os.path.realpath(path), stored_rows.sha256_of(file).hex())
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None


def _entry_path(key: _Key) -> Path:
    return (folder() or Path()) / f"{_prefix(key)}{key.json_sha256}{SUFFIX}"


def _prefix(key: _Key) -> str:
    return f"{key.kind}-{sha256(os.fsencode(key.json_path)).hexdigest()[:16]}-"


def _load(key: _Key, path: Path) -> AnnotatedImages | None:
    """What is stored of the JSON; None where that is nothing, or not to be trusted."""
    entry = _entry_path(key)
    try:
        table, rows = stored_rows.load(entry, _KINDS[key.kind].coding)
        if table["label"] != key.label or len(table["images"]) != len(rows):
            return None
        source = _Source(key, CategorySet.from_coco(table["categories"], path), rows)
        annotations = [ImageRow(source, index) for index in range(len(rows))]
        used = frozenset(table["category_ids"])
    except (OSError, ValueError, KeyError, TypeError, DatasetError):
        return None
    with suppress(OSError):
        os.utime(entry)  # it is in use: see `_remove_old`
    _sources[key] = source
    return AnnotatedImages(path, source.categories, table["images"], annotations, used)


def _store(key: _Key, parsed: AnnotatedImages) -> bool:
    """Whether it worked: a full or read-only disk is reported once, and is no error."""
    entry = _entry_path(key)
    table = {
        "label": key.label,
        "categories": parsed.categories.to_coco(),
        "images": parsed.images,
        "category_ids": sorted(parsed.category_ids),
    }
    try:
        rows: Iterable[Any] = parsed.annotations
        stored_rows.write(entry, key.label, table, rows, _KINDS[key.kind].coding)
    except (OSError, ValueError, RecursionError) as error:
        _say_once(entry.parent, error)
        return False
    _remove_old(entry, _prefix(key))
    return True


def _say_once(place: Path, error: Exception) -> None:
    if place not in _told:
        _told.add(place)
        log.warning("parsed annotations are not cached in %s (SEGKIT_CACHE can name another folder): %s", place, error)


def _remove_old(entry: Path, prefix: str) -> None:
    """Removes what the entry replaces, and what nobody will use: another process may do the same at the same time."""
    for path in entry.parent.iterdir():
        with suppress(OSError, ValueError):
            days = (time.time() - path.stat().st_mtime) / 86400
            if path.suffix == ".tmp" and days > LEFT_OVER_DAYS:
                path.unlink()
            elif path.suffix == SUFFIX and path != entry:
                describe_unused = (
                    days > UNUSED_DAYS and not Path(str(stored_rows.read_label(path).get("json_path"))).exists()
                )
                if describe_unused or path.name.startswith(prefix):
                    path.unlink()


_told: set[Path] = set()
_sources: dict[_Key, _Source] = {}  # open in this process, for rows that come back from pickling


def _row_again(kind: str, json_path: str, json_sha256: str, index: int) -> ImageRow | list[Entry]:
    key, path = _Key(kind, json_path, json_sha256), Path(json_path)
    if key not in _sources and _load(key, path) is None:  # the entry is gone, but the JSON may be as it was
        _read(kind, path)
    if key in _sources:
        return ImageRow(_sources[key], index)
    raise DatasetError(
        "the parsed annotations are gone from the cache, and cannot be made again", where=path, remedy="start again"
    )


def _parse_instances(path: Path) -> AnnotatedImages:
    file = coco.read_instances(path)
    by_image: dict[Any, list[Entry]] = {image["id"]: [] for image in file.images}
    used = set()
    for annotation in file.annotations:
        used.add(annotation["category_id"])
        kept = {key: annotation[key] for key in INSTANCE_KEYS}
        segmentation = annotation["segmentation"]
        if type(segmentation) is dict:
            segmentation = {"size": segmentation["size"], "counts": segmentation["counts"]}
        by_image[annotation["image_id"]].append({**kept, "segmentation": segmentation})
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


_KINDS = {
    "instances": _Kind(_parse_instances, stored_rows.FINITE_JSON),
    "panoptic": _Kind(_parse_panoptic, stored_rows.ANY_JSON),
}
