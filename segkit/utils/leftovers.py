"""Temporary files and folders that name their process: those of a killed process are removed later."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

NAME = re.compile(r"\.segkit-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{16}\.tmp")  # machine, process, start, random
START_FIELD = 19  # of /proc/<pid>/stat, after the name of the program: when the process started (proc(5))
ENDED = -1
_searched: set[str] = set()  # folders in which this process has looked for leftovers


@contextmanager
def temporary_path(folder: Path, keep_folders: bool = True) -> Iterator[Path]:
    """Choose a hidden path in a folder, for a file or a folder that will be renamed.

    The folder is made if it is missing. Before the first path in it, leftovers of killed processes are removed from it.

    Args:
        folder: the folder.
        keep_folders: whether the folders that were made stay; if the block raises, they do not.

    Yields:
        The path. What is there at the end is removed.

    Raises:
        OSError: the folder cannot be made.
    """
    made = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    folder.mkdir(parents=True, exist_ok=True)
    if str(folder) not in _searched:
        _searched.add(str(folder))
        remove_leftovers(folder)
    path = folder / choose_name()
    succeeded = False
    try:
        yield path
        succeeded = True
    finally:
        _remove(path)
        for parent in () if succeeded and keep_folders else made:
            with suppress(OSError):  # it has content
                parent.rmdir()


def choose_name() -> str:
    """Choose a hidden name that says which process uses it.

    Returns:
        A name that matches `NAME`.
    """
    pid = os.getpid()
    return f".segkit-{get_machine()}-{pid}-{get_process_start(pid)}-{secrets.token_hex(8)}.tmp"


def remove_leftovers(folder: Path, idle_s: float = math.inf) -> None:
    """Remove the temporary files and folders of processes that were killed. What a live process uses stays.

    The processes of another machine or container cannot be seen, so their files stay too, unless they are idle.

    Args:
        folder: where to look, without the folders below it.
        idle_s: seconds without a write after which a file of another machine is a leftover.
    """
    with suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if NAME.fullmatch(entry.name)]:
            if not _is_used(path, idle_s):
                _remove(path)


def _is_used(path: Path, idle_s: float) -> bool:
    machine, pid, start = NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
    if machine == get_machine():
        return may_be_alive(int(pid), int(start))
    return path.is_dir() or time.time() - path.stat().st_mtime < idle_s


def may_be_alive(pid: int, start: int) -> bool:
    """Whether a process of this machine runs.

    Args:
        pid: its number.
        start: its `get_process_start`, since another process may have got the number.

    Returns:
        False if it has ended; True if it runs, or if the system does not say.
    """
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        pass
    return start in (0, get_process_start(pid))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def get_process_start(pid: int) -> int:
    """When a process of this machine started.

    Args:
        pid: its number.

    Returns:
        Ticks since the machine started; 0 if the system does not say, ENDED for a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return ENDED if fields[0] == b"Z" else int(fields[START_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


@lru_cache(maxsize=1)
def get_machine() -> str:
    """A name of the machine, or of the container: within it, process numbers mean the same.

    Returns:
        Eight hexadecimal digits.
    """
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode("utf-8", "replace")).hexdigest()[:8]
