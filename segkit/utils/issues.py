"""Errors of single files: raised at once, or passed to a handler or collected, so that the work goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from segkit.utils.errors import DatasetError, OutputError
from segkit.utils.file_names import explain_missing
from segkit.utils.text import abbreviate

MAX_CHARACTERS = 1000  # of a path in a message
DEFAULT_LIMIT = 20  # errors that a run collects before it stops
MAX_PLACES = 3  # of errors of one kind in a message
LINE_START = "\n- "  # of each kind in the message of several errors
# Quoted texts, brackets and numbers: errors of one kind differ in nothing else.
VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^]]*\]|[-+]?\d[\w.+-]*")
Result = TypeVar("Result")

IssueHandler = Callable[[str, DatasetError], None]


def raise_issue(code: str, error: DatasetError) -> None:
    """Raise every issue: the handler for a dataset that is used, not checked.

    Args:
        code: code of the issue, unused.
        error: the error.

    Raises:
        DatasetError: always.
    """
    raise error


def try_read(on_issue: IssueHandler, code: str, read: Callable[..., Result], *arguments: Any) -> Result | None:
    """Call a function and pass its DatasetError to a handler.

    Args:
        on_issue: gets the error.
        code: code of the issue; "" for that of the error.
        read: the function.
        *arguments: its arguments.

    Returns:
        The result of the function; None if it raised and `on_issue` returned.
    """
    try:
        return read(*arguments)
    except DatasetError as error:
        on_issue(code or error.code, error)
        return None


def report_missing(on_issue: IssueHandler, code: str, kind: str, paths: Sequence[Path], remedy: str) -> set[Path]:
    """Report each path that is no file, and how many there are.

    Args:
        on_issue: gets one error for each missing file, in their order.
        code: code of the issue.
        kind: text for what the files are.
        paths: files that should exist.
        remedy: for the message.

    Returns:
        The paths that are no files.
    """
    missing = [path for path in paths if not os.path.isfile(path)]  # Path.is_file raises for a name that is too long
    for path in missing:
        problem = f"the {kind} is missing ({len(missing)} of {len(paths)} are){explain_missing(path)}"
        on_issue(code, DatasetError(problem, where=_shorten(path), remedy=remedy))
    return {*missing}


def report_unpaired(
    on_issue: IssueHandler, code: str, problem: str, files: Mapping[str, object], partners: Container[str], remedy: str
) -> None:
    """Report each file that has no partner of the same name, and how many there are.

    Args:
        on_issue: gets one error for each such file.
        code: code of the issue.
        problem: text for what is wrong.
        files: name -> file.
        partners: names that have a partner.
        remedy: for the message.
    """
    paths = [path for name, path in files.items() if name not in partners]
    for path in paths:
        message = f"{problem} ({len(paths)} of {len(files)} files)"
        on_issue(code, DatasetError(message, where=_shorten(path), remedy=remedy))


def describe_unused(where: object, kind: str, names: Sequence[object]) -> tuple[str, ...]:
    """Describe files or keys that are not used.

    Args:
        where: the file or folder that holds them.
        kind: text for what they are.
        names: their names.

    Returns:
        One line for `DatasetReader.skipped`, or none without names.
    """
    return (f"{where}: {len(names)} {kind}: {abbreviate(names)}",) if names else ()


class ErrorCollector:
    """Collects the DatasetErrors of a run, to raise them as one.

    Args:
        limit: at least 1; the run stops at so many errors.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.limit = limit
        self._errors: list[DatasetError] = []

    def __len__(self) -> int:
        return len(self._errors)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Collect a DatasetError of the block.

        Yields:
            Nothing.

        Raises:
            DatasetError: the limit is reached; the error lists all.
        """
        try:
            yield
        except DatasetError as error:
            self.add(error)

    def add(self, error: DatasetError) -> None:
        """Collect an error.

        Args:
            error: the error.

        Raises:
            DatasetError: the limit is reached; the error lists all.
            OutputError: the error is one.
        """
        if isinstance(error, OutputError):
            raise error
        self._errors.append(error)
        if len(self) >= self.limit:
            raise self._join(f"{len(self)} problems found, the search stopped here") from None

    def add_issue(self, code: str, error: DatasetError) -> None:
        """Collect an error, as `on_issue` of a reader.

        Args:
            code: code of the issue, unused.
            error: the error.

        Raises:
            DatasetError: the limit is reached; the error lists all.
        """
        self.add(error)

    def check(self) -> None:
        """Raise what was collected.

        Raises:
            DatasetError: there were errors; a single one has its own message, several have a line for each kind.
        """
        if len(self) == 1:
            raise DatasetError(str(self._errors[0]))
        if self._errors:
            raise self._join(f"{len(self)} problems")

    def _join(self, title: str) -> DatasetError:
        errors_by_kind: dict[object, list[DatasetError]] = {}
        for error in self._errors:
            kind = VALUES.sub("", error.problem) if error.where else str(error)
            errors_by_kind.setdefault((error.code, kind), []).append(error)
        return DatasetError(LINE_START.join([f"{title}:", *map(_describe_kind, errors_by_kind.values())]))


def _describe_kind(errors: Sequence[DatasetError]) -> str:
    """The first error, how many of its kind there are, and the places of the next ones."""
    first, others = errors[0], [error.where for error in errors[1:] if error.where]
    if not others:
        return f"{len(errors)} times: {first}" if len(errors) > 1 else str(first)
    places = ", ".join(others[: MAX_PLACES - 1])
    more = f" and {len(errors) - MAX_PLACES} more" if len(errors) > MAX_PLACES else ""
    return f"{len(errors)} times: {first} (also at {places}{more})"


def _shorten(path: object) -> str:
    """A file name in a JSON may be as long as the JSON."""
    text = str(path)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
