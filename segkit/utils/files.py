"""Files that appear whole or not at all, and JSON with errors that name the file."""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from segkit.utils.errors import DatasetError

Self = TypeVar("Self", bound="FinishOnExit")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it takes `path`'s place at the end of the block, and is removed on an error.

    Makes the folder. The neighbour's name is short and unlike any other, so that many processes can write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield neighbour
        os.replace(neighbour, path)
    finally:
        neighbour.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill: it becomes `path`, or what that links to, at the end of the block, and is removed on an error.
    DatasetError where `path` is there and not an empty folder, or cannot be written."""
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError("expected an empty or new folder", where=path, remedy="name another one")
    real = Path(os.path.realpath(path))
    neighbour = real.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        neighbour.mkdir(parents=True)
        yield neighbour
        if real.is_dir():
            real.rmdir()
        os.replace(neighbour, real)
    except OSError as error:
        raise DatasetError(f"cannot be written: {error}", where=path) from None
    except DatasetError as error:  # whoever wrote knew the folder by its name for the time being
        raise DatasetError(str(error).replace(str(neighbour), str(path))) from None
    finally:
        shutil.rmtree(neighbour, ignore_errors=True)


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes a file, into a DatasetError.

    Args:
        path: The file that the block writes.

    Yields:
        Nothing.

    Raises:
        DatasetError: The block cannot write: no such place, no permission, no space left.
    """
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise DatasetError(problem, where=path, remedy="name another file, or make room") from None


def check_writable(path: Path) -> None:
    """Raise before the work what writing a file would raise after it; creates its folder.

    Args:
        path: The file.

    Raises:
        DatasetError: The path is a folder or a device, or cannot be written.
    """
    with convert_write_errors(path):
        if path.is_dir():
            raise DatasetError("expected a file to write, this is a folder", where=path, remedy="name a file in it")
        if path.exists() and not path.is_file():  # a file would replace the device
            raise DatasetError("expected a file to write, this is a device", where=path, remedy="name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """The file's content, or its first `limit` bytes; DatasetError where it is missing or cannot be read.

    A pipe or a device is refused: reading one may wait for ever.
    """
    try:
        if not path.is_file() and path.exists():
            problem = "the file cannot be read: this is a folder, a pipe or a device"
            raise DatasetError(problem, where=path, remedy="give a file")
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise DatasetError("expected a file, found nothing", where=path, remedy="check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DatasetError(f"the file cannot be read: {error}", where=path) from None


def check_file_size(path: Path, max_bytes: int, remedy: str = "") -> None:
    """DatasetError if the file has more bytes than `max_bytes`; a missing file passes."""
    n_bytes = path.stat().st_size if os.path.isfile(path) else 0  # Path.is_file raises for a name that is too long
    if n_bytes > max_bytes:
        raise DatasetError(f"expected at most {max_bytes} bytes, got {n_bytes}", where=path, remedy=remedy)


class FinishOnExit:
    """What is written in a `with` block and finished at its end, but not on an exception."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> None:
        """Write what belongs to the whole, an index say; nothing by default."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Parsing makes millions of objects and no cycle: here Python does not look for cycles, a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_json(path: Path) -> Any:
    """The JSON in the file; DatasetError where it is missing or not JSON."""
    content = read_bytes(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        remedy = "is it complete, and the right file?"
        raise DatasetError(
            f"expected JSON, got {len(content)} bytes that are not: {error}", where=path, remedy=remedy
        ) from None


def dump_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all; ValueError where `content` holds NaN or infinity, which JSON has not."""
    with replacing(path) as neighbour, neighbour.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=False))
