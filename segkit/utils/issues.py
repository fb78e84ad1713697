"""What is wrong with single files, told one by one in place of ending the work at the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

MAX_CHARACTERS = 1000  # of a path in a message
DEFAULT_LIMIT = 20  # errors that a run collects before it stops
Result = TypeVar("Result")

IssueHandler = Callable[[str, DatasetError], None]


def raise_issue(code: str, error: DatasetError) -> None:
    """The `on_issue` of a source that is to be used, not checked: what is wrong is raised."""
    raise error


def try_read(on_issue: IssueHandler, code: str, read: Callable[..., Result], *arguments: Any) -> Result | None:
    """What `read` makes of the arguments; None if it raises a DatasetError that `on_issue` takes."""
    try:
        return read(*arguments)
    except DatasetError as error:
        on_issue(code, error)
        return None


def report_missing(on_issue: IssueHandler, code: str, what: str, paths: Sequence[Path], remedy: str) -> set[Path]:
    """Those of the paths that are no files; `on_issue` gets each of them, in their order, and how many there are."""
    gone = [path for path in paths if not os.path.isfile(path)]  # Path.is_file raises for a name that is too long
    for path in gone:
        problem = f"the {what} is missing ({len(gone)} of {len(paths)} are)"
        on_issue(code, DatasetError(problem, where=_short(path), remedy=remedy))
    return {*gone}


def report_unpaired(
    on_issue: IssueHandler, code: str, problem: str, found: Mapping[str, object], partners: Container[str], remedy: str
) -> None:
    """`on_issue` gets each of the files found by name that has no partner of its name, and how many they are."""
    paths = [path for name, path in found.items() if name not in partners]
    for path in paths:
        on_issue(
            code, DatasetError(f"{problem} ({len(paths)} of {len(found)} files)", where=_short(path), remedy=remedy)
        )


def describe_unused(where: object, what: str, names: Sequence[object]) -> tuple[str, ...]:
    """The line of `DatasetReader.skipped` on files or keys that are there for nothing; none where there are none."""
    return (f"{where}: {len(names)} {what}: {abbreviate(names)}",) if names else ()


class ErrorCollector:
    """Collects the DatasetErrors of a run; `check` raises one error that tells them all.

    limit: at so many the search stops with that error at once.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.limit = limit
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keeps a DatasetError of the block; DatasetError with all of them where the limit is reached."""
        try:
            yield
        except DatasetError as error:
            self.add(error)

    def add(self, error: DatasetError) -> None:
        """Keep one; raises as `guard` does."""
        self._found.append(str(error))
        if len(self._found) >= self.limit:
            raise self._error(f"{len(self._found)} problems found, the search stopped here") from None

    def check(self) -> None:
        """DatasetError that tells all problems, where there are any; a single one is told as it was raised."""
        if len(self._found) == 1:
            raise DatasetError(self._found[0])
        if self._found:
            raise self._error(f"{len(self._found)} problems")

    def _error(self, title: str) -> DatasetError:
        numbered = " ".join(f"[{number}] {problem}" for number, problem in enumerate(self._found, 1))
        return DatasetError(f"{title}: {numbered}")


def _short(path: object) -> str:
    """A JSON's name of a file may be as long as the JSON."""
    text = str(path)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
