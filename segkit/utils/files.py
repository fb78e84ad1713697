"""Files and folders that are written whole or not at all, and JSON with errors that name the file."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from segkit.utils.errors import DatasetError, OutputError
from segkit.utils.file_names import explain_missing
from segkit.utils.leftovers import temporary_path
from segkit.utils.links import check_guarded_link

PROBE_BYTES = 4096  # a full disk may still have room for the name of a file
Self = TypeVar("Self", bound="FinishOnExit")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: a temporary file is moved to `path` at the end of the block.

    The folder is made if it is missing. Temporary names are random, so that many processes can write at once.

    Args:
        path: file to write.

    Yields:
        Temporary path in the same folder; it is removed if the block raises.

    Raises:
        DatasetError: the file cannot be written: no such place, no permission, no space left.
    """
    neighbour = path
    try:
        with temporary_path(path.parent) as neighbour:
            yield neighbour
            os.replace(neighbour, path)
    except OSError as error:
        if error.filename is not None and str(error.filename) not in map(str, (neighbour, path, *path.parents)):
            raise  # the block could not read another file
        raise _build_write_error(path, error) from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder whole or not at all: a temporary folder is moved to `path` at the end of the block.

    Args:
        path: new or empty folder, or a link to one.

    Yields:
        Temporary folder to fill; it is removed if the block raises.

    Raises:
        DatasetError: `path` is a file or has content, or cannot be written.
    """
    real = neighbour = Path(os.path.realpath(path))
    try:
        _check_empty(path)
        with temporary_path(real.parent) as neighbour:
            neighbour.mkdir()
            with renaming(neighbour, path):
                yield neighbour
            if real.is_dir():
                real.rmdir()
            os.replace(neighbour, real)
    except OSError as error:
        raise _build_write_error(path, error) from None


@contextmanager
def renaming(temporary: Path, path: Path) -> Iterator[None]:
    """Let errors of the block, which writes below a temporary path, name the path that the user knows.

    Args:
        temporary: Temporary path.
        path: Where its content will be.

    Yields:
        Nothing.

    Raises:
        DatasetError: That of the block.
    """
    try:
        yield
    except DatasetError as error:
        raise type(error)(str(error).replace(str(temporary), str(path))) from None


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
        raise _build_write_error(path, error) from None


def check_writable(path: Path) -> None:
    """Raise before the work what writing a file would raise after it. Nothing stays behind.

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
        _try_to_write(path.parent)


def check_output_folder(path: Path, must_be_empty: bool = False) -> None:
    """Raise before the work what writing into a folder would raise after it. Nothing stays behind.

    Args:
        path: The folder, which need not exist.
        must_be_empty: Whether a folder with content is refused.

    Raises:
        DatasetError: The path, or a part of it, is a file; the folder cannot be made or written; or it has content.
    """
    with convert_write_errors(path):
        if must_be_empty:
            _check_empty(path)
        elif os.path.lexists(path) and not path.is_dir():
            raise DatasetError("expected a folder, this is a file", where=path, remedy="name another folder")
        _try_to_write(path)


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """Read a file. Pipes and devices are refused, since reading one may wait forever.

    Args:
        path: file to read.
        limit: read only so many bytes; -1 reads all.

    Returns:
        The content.

    Raises:
        DatasetError: the file is missing or cannot be read, or is a link that `links` refuses.
    """
    check_guarded_link(path)
    try:
        if not path.is_file() and path.exists():
            problem = "the file cannot be read: this is a folder, a pipe or a device"
            raise DatasetError(problem, where=path, remedy="give a file")
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        problem = f"expected a file, found nothing{explain_missing(path)}"
        raise DatasetError(problem, where=path, remedy="check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DatasetError(f"the file cannot be read: {error}", where=path) from None


def check_file_size(path: Path, max_bytes: int, remedy: str = "") -> None:
    """Check the size of a file. A missing file passes.

    Args:
        path: file to check.
        max_bytes: the largest size.
        remedy: for the message.

    Raises:
        DatasetError: the file is larger.
    """
    n_bytes = path.stat().st_size if os.path.isfile(path) else 0  # Path.is_file raises for a name that is too long
    if n_bytes > max_bytes:
        raise DatasetError(f"expected at most {max_bytes} bytes, got {n_bytes}", where=path, remedy=remedy)


class FinishOnExit:
    """A writer that is used in a `with` block, and finished at its end if the block does not raise."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error_and_traceback: object) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> None:
        """Write what belongs to the whole, an index for example; by default nothing."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Pause the garbage collection: parsing makes millions of objects and no cycles.

    Yields:
        Nothing. Parsing in the block takes a third less time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: file to read.

    Returns:
        The content.

    Raises:
        DatasetError: the file is missing, not JSON, or nested too deeply.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)
    except RecursionError:
        raise DatasetError("expected JSON, got lists or objects nested too deeply", where=path) from None
    except ValueError as error:
        problem = f"expected JSON, got {len(content)} bytes that are not: {error}"
        raise DatasetError(problem, where=path, remedy="check that it is complete, and the right file") from None


def dump_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all.

    Args:
        path: file to write.
        content: lists, dicts, texts, numbers, bools and None.

    Raises:
        ValueError: `content` holds NaN or infinity, which JSON does not have.
    """
    with replacing(path) as neighbour, neighbour.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=False))


def _check_empty(path: Path) -> None:
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError("expected an empty or new folder", where=path, remedy="name another one")


def _try_to_write(folder: Path) -> None:
    """Raise OSError if the folder cannot be made, or no file be written in it; folders that were made are removed."""
    with temporary_path(folder, keep_folders=False) as path:
        path.write_bytes(bytes(PROBE_BYTES))


def _build_write_error(path: Path, error: OSError) -> OutputError:
    problem = f"cannot be written: {error.strerror or error}"
    return OutputError(problem, where=path, remedy="name another place, or make room")
