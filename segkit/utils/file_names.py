"""Names of files in another spelling: with backslashes, URL escapes, another Unicode form or letter case."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

BACKSLASHES = "with backslashes"
ESCAPES = "with URL escapes such as %20"
UNICODE_FORM = "in another Unicode form (NFC or NFD)"
LETTER_CASE = "in other letter case"


class FolderNames:
    """The names of the files in a folder; each sub-folder is listed once, when a name in it is asked for.

    Only names in these listings are returned: no name leads out of the folder.

    Args:
        folder: the folder; it may be missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._names: dict[str, set[str]] = {}  # by sub-folder
        self._by_key: dict[str, dict[str, list[str]]] = {}  # by sub-folder and key

    def find(self, name: str) -> str | None:
        """Find a file.

        Args:
            name: path in the folder, in any spelling.

        Returns:
            The name itself if there is such a file, else the only one that differs in nothing but its spelling; None if
            there is none, or several.
        """
        folder, _, leaf = name.rpartition("/")
        if not name.startswith("/") and ".." not in folder.split("/") and leaf in self._list(folder):
            return name
        spellings = self._find_spellings(_split(name.replace("\\", "/")))
        return spellings[0] if len(spellings) == 1 else None

    def resolve(self, name: str) -> str:
        """Spell a name as its file.

        Args:
            name: path in the folder, in any spelling.

        Returns:
            The name of the file; `name` if `find` finds none.
        """
        return self.find(name) or name

    def locate(self, name: str) -> Path:
        """Give the path of a file.

        Args:
            name: path in the folder, in any spelling.

        Returns:
            The path of the file that `resolve` finds.
        """
        return self.folder / self.resolve(name)

    def explain(self, name: str) -> str:
        """Say what else a missing file may be.

        Args:
            name: path in the folder.

        Returns:
            Text such as `is it b.png?`, to be added to a message; "" without a candidate.
        """
        if self.find(name) == name:  # a folder, or a broken link
            return ""
        parts = _split(name.replace("\\", "/"))
        spellings = self._find_spellings(parts)
        if spellings:
            spelling = spellings[0]
            return f"is it {spelling}? The name is spelled {describe_spelling(name, spelling)}"
        for start in range(1, len(parts)):
            if inner := self._find_spellings(parts[start:]):
                return f"is it {inner[0]}, without {'/'.join(parts[:start])}/?"
        return ""

    def _find_spellings(self, parts: list[str]) -> list[str]:
        """The files whose parts have the keys of these parts."""
        if ".." in parts:
            return []
        folders = [""]
        for part in parts:
            folders = [
                f"{folder}/{name}" if folder else name for folder in folders for name in self._match(folder, part)
            ]
        return [folder for folder in folders if folder]

    def _match(self, folder: str, part: str) -> list[str]:
        names = self._list(folder)
        if part in names:
            return [part]
        if folder not in self._by_key:
            by_key = self._by_key[folder] = {}
            for name in sorted(names):
                by_key.setdefault(_get_key(name), []).append(name)
        spellings = self._by_key[folder].get(_get_key(part), [])
        return [name for name in spellings if _decode(name) == _decode(part)] or spellings  # in the same letter case

    def _list(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                self._names[folder] = {*os.listdir(self.folder / folder)}
            except (OSError, ValueError):  # no folder, a name that is too long, a NUL
                self._names[folder] = set()
        return self._names[folder]


def explain_missing(path: str | Path) -> str:
    """Say what else a missing file may be.

    Args:
        path: the file.

    Returns:
        Text such as ` (is it b.png? ...)`, to be added to a message; "" without a candidate.
    """
    path = Path(path)
    folder = next((parent for parent in path.parents if os.path.isdir(parent)), None)
    if folder is None:
        return ""
    try:
        changed_ns = os.stat(folder).st_mtime_ns
    except OSError:
        return ""
    text = _list_folder(folder, changed_ns).explain(path.relative_to(folder).as_posix())
    return f" ({text})" if text else ""


def resolve_names(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Spell names as the files of a folder.

    Args:
        folder: the folder; it may be missing.
        names: paths in the folder, in any spelling.

    Returns:
        For each name that of its file, or the name itself if there is no such file.
    """
    return [*map(FolderNames(folder).resolve, names)]


def describe_spelling(name: str, spelling: str) -> str:
    """Say how a name is spelled.

    Args:
        name: a name in a file.
        spelling: the name that the file system has for it.

    Returns:
        Text such as `with backslashes`; "" if the names are equal.
    """
    slashed = name.replace("\\", "/")
    first, second = unquote(slashed), unquote(spelling)
    causes = {
        BACKSLASHES: "\\" in name,
        ESCAPES: (first != slashed) != (second != spelling),
        UNICODE_FORM: first.casefold() != second.casefold(),
        LETTER_CASE: _decode(slashed) != _decode(spelling),
    }
    return "" if name == spelling else ", ".join(cause for cause, applies in causes.items() if applies)


@lru_cache(maxsize=16)
def _list_folder(folder: Path, changed_ns: int) -> FolderNames:
    """The names in a folder, listed once for many missing files."""
    return FolderNames(folder)


def _split(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts if part != "/"]


def _get_key(part: str) -> str:
    return _decode(part).casefold()


def _decode(text: str) -> str:
    return unicodedata.normalize("NFC", unquote(text))
