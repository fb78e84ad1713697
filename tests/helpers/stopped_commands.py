"""Commands in processes of their own that are stopped midway, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STATE, SESSION = 0, 3  # fields of /proc/<pid>/stat after the name of the program, see proc(5)
POLL_SECONDS = 0.01


@contextmanager
def start(*arguments: Any, program: Any = ("-m", "segkit")) -> Iterator[subprocess.Popen[str]]:
    """Starts `segkit ARGUMENTS` in a session of its own, so that all of its processes are known; all end here."""
    command = [sys.executable, *program, *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def list_processes(session: int) -> list[int]:
    """The processes of a session that run; zombies have ended."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[SESSION]) == session and fields[STATE] != "Z":
                running.append(int(path.parent.name))
    return running


def wait_until(is_reached: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: int = 120) -> None:
    """Waits for a condition; it is an error if the process ends before."""
    end = time.monotonic() + seconds
    while not is_reached():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the command ended with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < end, "nothing happened"
        time.sleep(POLL_SECONDS)


def list_hidden(folder: Path) -> list[str]:
    """Hidden files and folders, at any depth."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def has_png(folder: Path) -> bool:
    """Whether there is a PNG below the folder, which need not exist; hidden folders count."""
    return any(name.endswith(".png") for _, _, names in os.walk(folder) for name in names)
