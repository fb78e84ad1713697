"""Symbolic links in a dataset: what they lead to outside of it is a stranger's choice, and is not copied."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from segkit.utils.errors import DatasetError

_guarded: ContextVar[tuple[Path, ...]] = ContextVar("_guarded", default=())
_remedy: ContextVar[str] = ContextVar("_remedy", default="")


@contextmanager
def refusing_outer_links(named: Iterable[Path], remedy: str) -> Iterator[None]:
    """Refuse, in the block, to read files to which links in a dataset lead outside of it; see `check_link`.

    Args:
        named: the paths that the user names, folders or files; they may be links themselves.
        remedy: for the message.

    Yields:
        Nothing.
    """
    tokens = _guarded.set(tuple(named)), _remedy.set(remedy)
    try:
        yield
    finally:
        _guarded.reset(tokens[0])
        _remedy.reset(tokens[1])


def check_guarded_link(path: Path) -> None:
    """`check_link` with the paths of `refusing_outer_links`; every file of a dataset is opened after it.

    Args:
        path: file that is about to be read.

    Raises:
        DatasetError: the file is reached by a link that leads out of the dataset.
    """
    if _guarded.get():
        check_link(path, _guarded.get(), _remedy.get())


def check_link(path: Path, named: Iterable[Path], remedy: str) -> None:
    """Check that a file of a dataset is in the dataset, after following links.

    Args:
        path: any file. One that is not below a named path is no file of the dataset, and passes.
        named: the paths that the user names, folders or files; they may be links themselves.
        remedy: for the message.

    Raises:
        DatasetError: the file is below one of these paths, but what it links to is not.
    """
    folders = [*named]
    if not _is_below(os.path.abspath(path), map(os.path.abspath, folders)):
        return
    target = os.path.realpath(path)
    if not _is_below(target, map(os.path.realpath, folders)):
        problem = f"it is a link to {target}, outside of the dataset, which is not copied"
        raise DatasetError(problem, where=path, remedy=remedy)


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}") for folder in folders)
