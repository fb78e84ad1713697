"""One training in one folder: a lock that says who writes there, and that a killed training does not keep.

The lock is the file `run.lock` of the folder. Its holder rewrites it every 30 s. Ages are differences of modification
times, which the file system gives: the clocks of two machines need not agree.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase

from segkit.utils.errors import SegkitError
from segkit.utils.files import convert_write_errors
from segkit.utils.leftovers import get_machine, get_process_start, may_be_alive, remove_leftovers, temporary_path

LOCK_NAME = "run.lock"
RENEWAL_SECONDS, DEAD_SECONDS = 30.0, 180.0
LEFTOVER_IDLE_SECONDS = 600.0  # after which a temporary file of another machine is a leftover: no write takes so long
TAKEOVER_SECONDS, POLL_SECONDS = 5.0, 0.05  # how long to wait while another process takes over
MAX_BYTES = 4096

logger = logging.getLogger(__name__)


class RunLockError(SegkitError):
    """A folder into which another training writes."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: the content of the file.

    Attributes:
        token: random; no two holders have the same.
        host: name of the machine.
        machine: see `get_machine`.
        pid: number of the process.
        process_start: see `get_process_start`.
        job: Slurm's job id, which a requeued job keeps; "" without Slurm.
        started: UTC time at which the lock was taken.
        renewed: UTC time at which the holder wrote the file; text of a fixed length.
    """

    token: str
    host: str
    machine: str
    pid: int
    process_start: int
    job: str
    started: str
    renewed: str


FIELDS = {field.name: int if field.name in ("pid", "process_start") else str for field in fields(Holder)}


class RunLock:
    """A lock that is held; made by `hold_run_folder`."""

    def __init__(self, path: Path) -> None:
        pid = os.getpid()
        self._path = path
        self._fields = Holder(
            token=secrets.token_hex(8),
            host=platform.node(),
            machine=get_machine(),
            pid=pid,
            process_start=get_process_start(pid),
            job=_get_job(),
            started=_now(),
            renewed=_now(),
        )
        self._file = -1
        self._loss = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_the_end, name="run-lock", daemon=True)

    def check(self) -> None:
        """Stop a training whose folder another one has taken over; costs nothing, so call it in each step.

        Raises:
            RunLockError: this process was stopped for so long that another training holds the folder now.
        """
        if self._loss:
            problem = f"this training was stopped for more than {DEAD_SECONDS:g} s, and lost its folder: {self._loss}"
            raise RunLockError(problem, where=self._path, remedy="let the other training go on, or stop it first")

    def acquire(self) -> None:
        """Take the lock, or take over a dead one.

        Raises:
            RunLockError: a live training holds it.
            OSError: the folder cannot be written.
        """
        end = time.monotonic() + TAKEOVER_SECONDS
        while not self._try_to_acquire():
            if time.monotonic() > end:
                remedy = f"start again in {DEAD_SECONDS:g} s"
                raise RunLockError("another process is taking over the folder", where=self._path, remedy=remedy)
            time.sleep(POLL_SECONDS)
        self._thread.start()

    def release(self) -> None:
        """Remove the lock, if it is still this one."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            if (holder := _read(self._path)) and holder.token == self._fields.token:
                self._path.unlink()
        if self._file >= 0:
            os.close(self._file)

    def renew(self) -> None:
        """Write the time into the lock, unless another process has taken it over.

        Raises:
            OSError: the file system fails.
        """
        holder = _read(self._path)
        if holder and holder.token != self._fields.token:
            self._loss = f"{_describe(holder)} holds it"
        elif not self._path.exists():  # somebody has removed it
            self._create()
        else:
            self._write()

    def _renew_until_the_end(self) -> None:
        while not self._loss and not self._ending.wait(RENEWAL_SECONDS):
            try:
                self.renew()
            except OSError as error:
                logger.warning("%s cannot be renewed: %s; trying again", self._path, error.strerror or error)
        if self._loss:
            logger.error("%s: %s; this training stops", self._path, self._loss)

    def _try_to_acquire(self) -> bool:
        """False if the lock has changed meanwhile."""
        if self._create():
            return True
        holder = _read(self._path)
        with suppress(FileNotFoundError):
            age = self._measure_age()
            if not _is_dead(holder, age):
                raise _build_refusal(self._path, holder, age)
            return self._take_over(holder)
        return False

    def _create(self) -> bool:
        """Make the file, with its content, unless it exists."""
        with temporary_path(self._path.parent) as temporary:
            self._open(temporary)
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                try:
                    os.close(os.open(self._path, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return False
                os.replace(temporary, self._path)
        return True

    def _take_over(self, dead: Holder | None) -> bool:
        """Replace a dead lock. Who makes the file that is named after its token may do it, and nobody else."""
        claim = self._path.with_name(f"{LOCK_NAME}.{dead.token if dead else 'unreadable'}")
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with suppress(FileNotFoundError):
                if self._measure_age(claim) > DEAD_SECONDS:  # killed while it took over
                    claim.unlink()
            return False
        try:
            if _read(self._path) != dead:  # taken over, and the claim removed, since it was read
                return False
            with temporary_path(self._path.parent) as temporary:
                self._open(temporary)
                os.replace(temporary, self._path)
        finally:
            with suppress(OSError):
                claim.unlink()
        logger.warning("%s: taken over from %s, which is dead", self._path, _describe(dead))
        return True

    def _open(self, temporary: Path) -> None:
        """Write the file that will be the lock, and keep it open.

        After another process has replaced the lock, no write of this one reaches it.
        """
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(temporary, os.O_CREAT | os.O_RDWR, 0o644)
        self._write()

    def _write(self) -> None:
        content = json.dumps({**asdict(self._fields), "renewed": _now()}) + "\n"
        os.pwrite(self._file, content.encode(), 0)  # always of the same length
        os.fsync(self._file)

    def _measure_age(self, path: Path | None = None) -> float:
        """Seconds since the last write of a file, by the clock of the file system."""
        with temporary_path(self._path.parent) as probe:
            probe.touch()
            return probe.stat().st_mtime - (path or self._path).stat().st_mtime


class RunLockHook(HookBase):
    """Stops a training that has lost its folder.

    Args:
        lock: the lock that it holds.
    """

    def __init__(self, lock: RunLock) -> None:
        self.lock = lock

    def before_step(self) -> None:
        """See base class."""
        self.lock.check()


@contextmanager
def hold_run_folder(folder: str | Path) -> Iterator[RunLock]:
    """Let no other training write into a folder during the block.

    A lock is dead, and is taken over, if its process has ended (on this machine), if it is of this Slurm job, which was
    requeued, or if it was not renewed for 3 minutes. What killed processes have left in the folder is removed.

    Args:
        folder: OUTPUT_DIR; it is made if it is missing.

    Yields:
        The lock, whose `check` is to be called in each step.

    Raises:
        RunLockError: another training writes into the folder.
        DatasetError: the folder cannot be written.
    """
    path = Path(folder, LOCK_NAME)
    lock = RunLock(path)
    try:
        with convert_write_errors(path):
            lock.acquire()
        remove_leftovers(Path(folder), LEFTOVER_IDLE_SECONDS)
        yield lock
    finally:
        lock.release()


def _get_job() -> str:
    return os.environ.get("SLURM_JOB_ID", "")


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(path: Path) -> Holder | None:
    """The content of a lock; None if there is none, or it is not a lock."""
    try:
        content = json.loads(path.read_bytes()[:MAX_BYTES])
        values: dict[str, Any] = {name: kind(content[name]) for name, kind in FIELDS.items()}
        holder = Holder(**values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return holder if holder.token.isalnum() else None  # it becomes a part of a path


def _is_dead(holder: Holder | None, age: float) -> bool:
    if age > DEAD_SECONDS or holder is None:
        return age > DEAD_SECONDS
    if holder.machine == get_machine():
        return not may_be_alive(holder.pid, holder.process_start)
    return holder.job != "" and holder.job == _get_job()


def _build_refusal(path: Path, holder: Holder | None, age: float) -> RunLockError:
    problem = f"{_describe(holder)} trains into this folder; it gave a sign of life {max(0.0, age):.0f} s ago"
    remedy = "stop it, or name another OUTPUT_DIR"
    if holder is None or holder.machine != get_machine():
        remedy += f"; if it was killed, start again in {max(1.0, DEAD_SECONDS - age):.0f} s"
    return RunLockError(problem, where=path, remedy=remedy)


def _describe(holder: Holder | None) -> str:
    if holder is None:
        return "an unknown process"
    job = f", job {holder.job}" if holder.job else ""
    return f"process {holder.pid} on {holder.host}{job}, started {holder.started},"
