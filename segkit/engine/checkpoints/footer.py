"""The footer of a checkpoint: a checksum of the file, and what orders checkpoints, readable without loading the file.

It is the comment at the end of the zip that `torch.save` writes, which torch and every zip reader skip: JSON of one
line that ends in the SHA-256 of all bytes before the checksum. torch itself does not compare the checksums of a zip.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from segkit.utils.errors import CheckpointError

FORMAT = 1  # raised if a file needs a newer segkit; where the footer stands and how it ends stays
FOOTER = re.compile(rb'\{"segkit_checkpoint": [^{}]*"sha256": "[0-9a-f]{64}"\}\Z')
CHECKSUM_BYTES = len(f'{hashlib.sha256().hexdigest()}"}}')  # the end of the footer, which the checksum leaves out
MAX_FOOTER_BYTES = 4096
ZIP_HEAD, ZIP_END, ZIP_END_BYTES = b"PK\x03\x04", b"PK\x05\x06", 22  # the end record, without a comment
BLOCK_BYTES = 1 << 20
NOT_COMPUTED = 0  # the CRCs of a zip that torch has written without checksums
DAMAGED = "it is incomplete, damaged or of another format: fetch or copy it again"


class DamagedFileError(CheckpointError):
    """A weight file that is incomplete or changed."""


@dataclass(frozen=True)
class Footer:
    """What the footer of a checkpoint says.

    Attributes:
        format: version of the file format.
        started: UTC time at which the training started, as text that sorts; a resumed training keeps it. "": unknown.
        iteration: the last iteration that was trained, from 0; None for weights that no training wrote.
        sha256: checksum of the file up to here.
    """

    format: int
    started: str
    iteration: int | None
    sha256: str


class ChecksumWriter:
    """A file for `torch.save` that adds the footer; the checksum costs no second pass over the file.

    Args:
        file: binary file, opened for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._end = b""  # the last bytes are held back: the end record states the length of the comment

    def write(self, data: Any) -> int:
        """Write some bytes."""
        view = memoryview(data).cast("B")
        if len(view) < ZIP_END_BYTES:
            held = self._end + bytes(view)
            self._pass_on(held[:-ZIP_END_BYTES])
            self._end = held[-ZIP_END_BYTES:]
        else:
            self._pass_on(self._end)
            self._pass_on(view[:-ZIP_END_BYTES])
            self._end = bytes(view[-ZIP_END_BYTES:])
        return len(view)

    def flush(self) -> None:
        """Do nothing: `finish` writes the rest."""

    def finish(self, started: str, iteration: int | None) -> None:
        """Write the footer, after `torch.save`.

        Args:
            started: see `Footer`.
            iteration: see `Footer`.

        Raises:
            RuntimeError: what was written is not a zip without a comment.
        """
        if not self._end.startswith(ZIP_END) or not self._end.endswith(b"\0\0"):
            raise RuntimeError("torch.save has not written a zip")
        fields = {"segkit_checkpoint": FORMAT, "started": started, "iteration": iteration, "sha256": "0" * 64}
        head = json.dumps(fields).encode()[:-CHECKSUM_BYTES]
        length = len(head) + CHECKSUM_BYTES
        self._pass_on(self._end[:-2] + length.to_bytes(2, "little") + head)
        self._file.write(f'{self._hash.hexdigest()}"}}'.encode())

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)


def read_footer(path: Path) -> Footer | None:
    """Read the footer, without a test of the checksum.

    Args:
        path: a weight file.

    Returns:
        The footer; None for a file of another tool.

    Raises:
        DamagedFileError: the file is empty or cut off.
        CheckpointError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(len(ZIP_HEAD))
            file.seek(max(0, size - MAX_FOOTER_BYTES))
            end = file.read(MAX_FOOTER_BYTES)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=path) from None
    if not size:
        raise DamagedFileError("the file is damaged: it is empty", where=path, remedy=DAMAGED)
    if match := FOOTER.search(end):
        if footer := _parse(match[0]):
            return footer
        raise DamagedFileError("the file is damaged: its footer is unreadable", where=path, remedy=DAMAGED)
    if head == ZIP_HEAD and not (end[-ZIP_END_BYTES:].startswith(ZIP_END) and end.endswith(b"\0\0")):
        raise DamagedFileError("the file is damaged: its end is missing or changed", where=path, remedy=DAMAGED)
    return None


def check_whole(path: Path) -> Footer | None:
    """Test every byte of a weight file: with the checksum of the footer, or with the zip's own.

    Args:
        path: a weight file. One that is neither a checkpoint of segkit nor a zip passes.

    Returns:
        See `read_footer`.

    Raises:
        DamagedFileError: the file is incomplete or changed.
        CheckpointError: a later version of segkit wrote the file.
    """
    footer = read_footer(path)
    if footer is None:
        if _is_zip(path):
            _check_zip(path)
        return None
    if _compute_checksum(path) != footer.sha256:
        problem = "the file is damaged: its content has another checksum than when it was written"
        raise DamagedFileError(problem, where=path, remedy="take another checkpoint, or copy the file again")
    if footer.format > FORMAT:
        problem = f"a later version of segkit wrote the file: format {footer.format}, this version reads {FORMAT}"
        raise CheckpointError(problem, where=path, remedy="update segkit")
    return footer


def _parse(text: bytes) -> Footer | None:
    """The footer; None if its fields are missing or of another type."""
    try:
        fields = json.loads(text)
        footer = Footer(fields["segkit_checkpoint"], fields["started"], fields["iteration"], fields["sha256"])
    except (ValueError, KeyError):
        return None
    is_valid = isinstance(footer.format, int) and isinstance(footer.started, str)
    return footer if is_valid and isinstance(footer.iteration, int | None) else None


def _compute_checksum(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - CHECKSUM_BYTES
        while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
            sha256.update(block)
            left -= len(block)
    return sha256.hexdigest()


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ZIP_HEAD)) == ZIP_HEAD


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            is_stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            if not is_stored or sum(part.file_size for part in parts) > path.stat().st_size:
                return  # a zip that unpacks to more than its size, which `check_archive` refuses
            for part in parts:
                if part.CRC != NOT_COMPUTED and _compute_crc(archive, part) != part.CRC:
                    raise zipfile.BadZipFile(part.filename)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, zlib.error) as error:
        problem = f"the file is damaged: a part of the zip is changed ({' '.join(str(error).split())[:100]})"
        raise DamagedFileError(problem, where=path, remedy=DAMAGED) from error


def _compute_crc(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> int:
    crc = 0
    with archive.open(part) as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc
