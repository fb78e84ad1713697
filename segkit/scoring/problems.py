"""Everything that is wrong with the files of a run, told at once instead of one rerun at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segkit.utils.errors import DatasetError

DEFAULT_LIMIT = 20


class Problems:
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
