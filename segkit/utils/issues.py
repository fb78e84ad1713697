"""What is wrong with single files, told one by one in place of ending the work at the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segkit.formats.base import Tell
from segkit.formats.coco.tables import listed
from segkit.utils.errors import DatasetError

MAX_CHARACTERS = 1000  # of a path in a message
Result = TypeVar("Result")


def attempt(tell: Tell, code: str, read: Callable[..., Result], *arguments: Any) -> Result | None:
    """What `read` makes of the arguments; None where it raises a DatasetError and `tell`, which gets it, returns."""
    try:
        return read(*arguments)
    except DatasetError as error:
        tell(code, error)
        return None


def missing(tell: Tell, code: str, what: str, paths: Sequence[Path], remedy: str) -> set[Path]:
    """Those of the paths that are no files; `tell` gets each of them, in their order, and how many there are."""
    gone = [path for path in paths if not os.path.isfile(path)]  # Path.is_file raises for a name that is too long
    for path in gone:
        problem = f"the {what} is missing ({len(gone)} of {len(paths)} are)"
        tell(code, DatasetError(problem, where=_short(path), remedy=remedy))
    return {*gone}


def alone(
    tell: Tell, code: str, problem: str, found: Mapping[str, Path], partners: Container[str], remedy: str
) -> None:
    """`tell` gets each of the files found by name that has no partner of its name, and how many they are."""
    paths = [path for name, path in found.items() if name not in partners]
    for path in paths:
        tell(code, DatasetError(f"{problem} ({len(paths)} of {len(found)} files)", where=_short(path), remedy=remedy))


def unused(where: object, what: str, names: Sequence[object]) -> tuple[str, ...]:
    """The line of `Source.skipped` on files or keys that are there for nothing; none where there are none."""
    return (f"{where}: {len(names)} {what}: {listed(names)}",) if names else ()


def _short(path: Path) -> str:
    """A JSON's name of a file may be as long as the JSON."""
    text = str(path)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
