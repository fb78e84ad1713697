"""A file of JSON rows under one checksum: its table is loaded, its rows are read one by one when they are asked for.

The bytes: a line of JSON that says what the file is; the rows, each the JSON of a list of objects, one after another;
the table, a JSON object; the table's length; the SHA-256 of all that; a magic word. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

from segkit.utils import files
from segkit.utils.errors import DatasetError

FAST_JSON = msgspec is not None  # the extra `fast`
MAGIC = b"segkit-1"
FOOTER = struct.Struct(f"<Q32s{len(MAGIC)}s")  # length of the table, SHA-256 of all up to here, the magic word
DIGESTED = 8  # bytes of the footer that the checksum covers: the length
BLOCK = 1 << 20  # bytes read at once for a checksum
LONGEST_LABEL = 1 << 16

Row = list[dict[str, Any]]


@dataclass(frozen=True)
class Coding:
    """How rows become bytes and come back, to the last bit."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


ANY_JSON = Coding(lambda row: json.dumps(row, separators=(",", ":")).encode("ascii"), json.loads)
# msgspec is several times faster, but writes NaN as null and refuses half of a surrogate pair
FINITE_JSON = Coding(msgspec.json.encode, msgspec.json.decode) if FAST_JSON else ANY_JSON


class StoredRows(Sequence[Row]):
    """The rows of a file that is held open: they stay readable when another file takes its name."""

    def __init__(self, file: FileIO, ends: Sequence[int], counts: Sequence[int], coding: Coding) -> None:
        self.counts = counts  # objects in each row
        self._file = file
        self._ends = ends  # one more than rows: the first is where the rows begin
        self._decode = coding.decode
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Any) -> Any:
        """The list at `index`, made anew; DatasetError where the open file was cut or changed."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        start, end = self._ends[index], self._ends[index + 1]
        try:
            row = self._decode(self._read(start, end - start))
            if len(row) == self.counts[index]:
                return row
        except (OSError, ValueError, TypeError):
            pass
        problem = f"bytes {start} to {end} changed while the file was in use"
        raise DatasetError(problem, where=self._file.name, remedy="start again: it is then made anew")

    def _read(self, start: int, length: int) -> bytes:
        if hasattr(os, "pread"):  # without a position that forked processes would share
            return os.pread(self._file.fileno(), length, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)


def write(path: Path, label: Mapping[str, Any], table: Mapping[str, Any], rows: Iterable[Row], coding: Coding) -> None:
    """Writes the file, whole or not at all; OSError where that fails, ValueError where a row is no JSON."""
    digest = hashlib.sha256()
    with files.replacing(path) as neighbour, neighbour.open("wb") as file:

        def put(piece: bytes) -> int:
            digest.update(piece)
            return file.write(piece)

        start = put(json.dumps(label).encode("ascii") + b"\n")
        sizes = [(put(coding.encode(row)), len(row)) for row in rows]
        columns = {"start": start, "lengths": [size[0] for size in sizes], "counts": [size[1] for size in sizes]}
        length = put(json.dumps({**table, **columns}).encode("ascii"))
        footer = FOOTER.pack(length, b"", MAGIC)
        put(footer[:DIGESTED])
        file.write(digest.digest() + MAGIC)


def load(path: Path, coding: Coding) -> tuple[dict[str, Any], StoredRows]:
    """The table and the rows of a file, every byte of which was checked.

    Raises OSError where it cannot be read, ValueError where it is not as it was written.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(path)
    file = FileIO(path)
    try:
        table, text_start = _checked_table(file)
        ends = [*accumulate(table["lengths"], initial=table["start"])]
        counts = table["counts"]
        if ends[-1] != text_start or len(counts) + 1 != len(ends):
            raise ValueError("expected rows up to the table")
        return table, StoredRows(file, ends, counts, coding)
    except BaseException as error:
        file.close()
        if isinstance(error, (KeyError, TypeError, RecursionError)):
            raise ValueError(f"expected a table of rows, got something else: {error}") from error
        raise


def read_label(path: Path) -> dict[str, Any]:
    """What the file says it is, unchecked; OSError or ValueError where it says nothing."""
    with path.open("rb") as file:
        label = json.loads(file.readline(LONGEST_LABEL))
    if type(label) is not dict:
        raise ValueError(f"expected an object, got {label!r}")
    return label


def sha256_of(file: FileIO, length: int | None = None) -> bytes:
    """The checksum of the next `length` bytes, by default of all: read in blocks, so that it takes no memory."""
    digest, left = hashlib.sha256(), float("inf") if length is None else length
    buffer = memoryview(bytearray(BLOCK))
    while left:
        read = file.readinto(buffer[: int(min(BLOCK, left))])
        if not read:
            break
        digest.update(buffer[:read])
        left -= read
    return digest.digest()


def _checked_table(file: FileIO) -> tuple[dict[str, Any], int]:
    """The table, and where it starts."""
    footer_start = os.fstat(file.fileno()).st_size - FOOTER.size
    if footer_start < 0:
        raise ValueError("expected a footer, got too few bytes")
    digest = sha256_of(file, footer_start + DIGESTED)
    file.seek(footer_start)
    length, expected, magic = FOOTER.unpack(file.read(FOOTER.size))
    if magic != MAGIC or digest != expected:
        raise ValueError("expected the checksum of the content, got another")
    if length > footer_start:
        raise ValueError("expected a table inside the file")
    file.seek(footer_start - length)
    table: dict[str, Any] = json.loads(file.read(length))
    return table, footer_start - length
