"""What the ranks of a job know of each other. They meet in a store of torch.distributed, before there is a group."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

from segkit.engine.distributed.launch_plan import LaunchPlan
from segkit.utils.errors import ConfigError, SegkitError

Result = TypeVar("Result")
Store: TypeAlias = Any  # torch.distributed.Store; the stubs of torch 2.4 lack methods
FAILURE = "failure"  # key of the first failure of a rank; all others end with it
FAILED = 1  # exit code
LISTED = 8  # ranks that a message names
POLL_SECONDS = 0.2
ACKNOWLEDGE_SECONDS = 5.0  # in which other ranks learn of an error before the process with the store ends
LINGER_SECONDS = 2.0  # torchrun ends all ranks once one has ended: first the rank that prints the error
LEAVE_SECONDS = 10.0


@dataclass(frozen=True)
class Peer:
    """One rank of the job.

    Attributes:
        rank: its rank.
        host: name of its machine.
        pid: its process.
        local_world_size: processes that its launcher has started on its machine.
        nonce: says that an entry is of this start, and not of one before an elastic restart.
    """

    rank: int
    host: str
    pid: int
    local_world_size: int
    nonce: str

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, pid {self.pid})"


@dataclass(frozen=True)
class Failure:
    """Why the job ends.

    Attributes:
        rank: the rank that found the error; of the processes that are left, the one with the lowest rank prints it.
        text: the line for the user.
        suspects: ranks that do not answer.
    """

    rank: int
    text: str
    suspects: tuple[int, ...] = ()


class Peers:
    """This rank and the others.

    Args:
        plan: the place of this process.
        roster: all ranks, in order; empty in a job of one.
        store: where they meet, with a prefix that only this start uses; None in a job of one.
        watch_store: another connection to it, for the threads that watch; None in a job of one.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        roster: Sequence[Peer] = (),
        store: Store | None = None,
        watch_store: Store | None = None,
    ) -> None:
        self.plan, self.roster = plan, tuple(roster)
        self._store, self._watch_store = store, watch_store

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return self.plan.rank

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.plan.world_size

    @property
    def store(self) -> Store:
        """The store of the main thread."""
        assert self._store is not None, "a job of one rank has no store"
        return self._store

    @property
    def watch_store(self) -> Store:
        """The store of other threads: a call of the main thread may block its own."""
        assert self._watch_store is not None, "a job of one rank has no store"
        return self._watch_store

    def main_first(self, key: str, work: Callable[[], Result]) -> Result:
        """Run something in every rank: in rank 0 first, in the others only if it succeeds there.

        Args:
            key: name of this step, used once.
            work: what to run.

        Returns:
            The result of this rank.
        """
        if self.rank == 0:
            result = work()
            self.share(key, None)
            return result
        self.wait_for(key, ranks=(0,))
        return work()

    def share(self, key: str, value: Any) -> None:
        """Give the other ranks a value.

        Args:
            key: name of the value, used once.
            value: what JSON can hold.
        """
        if self._store is not None:
            self._store.set(f"{key}/{self.rank}", json.dumps(value))

    def wait_for(self, key: str, ranks: Iterable[int] | None = None, timeout: float | None = None) -> list[int]:
        """Wait until ranks have shared a value.

        Args:
            key: name of the value.
            ranks: ranks to wait for; None: all.
            timeout: seconds; None: as long as the ranks live, since a thread watches them.

        Returns:
            The ranks that have not shared it in time.
        """
        if self._store is None:
            return []
        missing = list(range(self.world_size) if ranks is None else ranks)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            missing = [rank for rank in missing if not self._store.check([f"{key}/{rank}"])]
            if not missing or (deadline is not None and time.monotonic() > deadline):
                return missing
            time.sleep(POLL_SECONDS)

    def collect(self, key: str, value: Any) -> list[Any]:
        """Exchange a value with all ranks.

        Args:
            key: name of the value, used once.
            value: what JSON can hold.

        Returns:
            The values of all ranks, in their order.
        """
        if self._store is None:
            return [value]
        self.share(key, value)
        self.wait_for(key)
        return [json.loads(text) for text in self._store.multi_get([f"{key}/{r}" for r in range(self.world_size)])]

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks of an error of this one, so that all of them end. Returns for the error to be raised.

        Args:
            error: the error.

        Raises:
            SystemExit: rank 0 has printed the error, or an earlier one of another rank.
        """
        failure = self.claim_failure(Failure(self.rank, _describe(error)), self.store)
        if failure.rank != self.rank:  # the watching thread ends this process
            silence()
            time.sleep(ACKNOWLEDGE_SECONDS + LINGER_SECONDS)
            raise SystemExit(FAILED)
        others = [rank for rank in range(self.world_size) if rank != self.rank]
        unaware = self.wait_for("acknowledged", others, timeout=ACKNOWLEDGE_SECONDS)
        if self.rank and 0 not in unaware and isinstance(error, (SegkitError, SystemExit)):
            raise SystemExit(FAILED)

    def claim_failure(self, failure: Failure, store: Store) -> Failure:
        """Make a failure the one that ends the job, if there is none yet.

        Args:
            failure: what has happened.
            store: the connection of the calling thread.

        Returns:
            The failure that ends the job.
        """
        winner = json.loads(store.compare_set(FAILURE, "", json.dumps(asdict(failure))))
        return Failure(winner["rank"], winner["text"], tuple(winner["suspects"]))

    def end_with(self, failure: Failure) -> NoReturn:
        """End this process because of another rank's failure, from any thread; one rank prints it.

        Args:
            failure: of `claim_failure`.
        """
        alive = (rank for rank in range(self.world_size) if rank not in failure.suspects)
        if failure.suspects:
            prints, text = self.rank == next(alive, None), failure.text
        else:  # rank 0 prints its own error by itself
            prints, text = self.rank == 0, f"{self.roster[failure.rank]}: {failure.text}"
        if prints:
            print_line(text)
        silence()
        with contextlib.suppress(Exception):
            self.watch_store.set(f"acknowledged/{self.rank}", "null")
        time.sleep(LINGER_SECONDS)
        os._exit(FAILED)

    def finish(self, timeout: float | None = None) -> bool:
        """Wait until every rank has done its work: after it, none watches the others.

        Args:
            timeout: seconds; None: as long as the ranks live.

        Returns:
            Whether all have.
        """
        self.share("finished", None)
        return not self.wait_for("finished", timeout=timeout)

    def leave(self) -> None:
        """The last step: rank 0 stays until the others have left, if it holds the store."""
        if self._store is None:
            return
        with contextlib.suppress(RuntimeError):  # the store is gone
            self.share("left", None)
            if self.rank == 0 and not self.plan.store_is_served:
                self.wait_for("left", timeout=LEAVE_SECONDS)

    def describe(self, ranks: Iterable[int]) -> str:
        """Name ranks with their hosts and processes.

        Args:
            ranks: any ranks.

        Returns:
            Text such as "rank 1 (host gpu02, pid 311)".
        """
        names = [str(self.roster[rank]) for rank in ranks]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return ", ".join(names[:LISTED]) + more


def read_seconds(name: str, default: float) -> float:
    """Read a time-out from the environment.

    Args:
        name: name of the variable.
        default: its value if it is not set.

    Returns:
        Seconds, more than 0.

    Raises:
        ConfigError: the value is no such number.
    """
    text = os.environ.get(name, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"expected seconds, got {text!r}", where=name)
    return seconds


@contextmanager
def ending_after(seconds: float, describe: Callable[[], str | None]) -> Iterator[None]:
    """End the process if the block takes longer: a collective cannot be interrupted in another way.

    Args:
        seconds: the limit.
        describe: gives the line to print, None if another rank prints it; called in another thread.

    Yields:
        Nothing.
    """

    def end() -> None:
        text = describe()
        if text:
            print_line(text)
        silence()
        time.sleep(LINGER_SECONDS)
        os._exit(FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print_line(text: str) -> None:
    """Print an error from a thread, as the command does at its end.

    Args:
        text: one line.
    """
    print(f"segkit: {' '.join(text.split())}", file=sys.stderr, flush=True)


def silence() -> None:
    """Send the rest of this process's output to nowhere: it ends because of an error that another rank shows."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(null, number)


def _describe(error: BaseException) -> str:
    """One line; an error that comes from another process ends with its message."""
    if isinstance(error, SegkitError):
        return str(error)
    if isinstance(error, SystemExit):
        return "was asked to end"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
