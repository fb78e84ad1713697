"""Work on many images at once, results in order, nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from segkit.utils.errors import SegkitError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # pieces of work under way or waiting per worker: what is kept in memory
ITEMS_AT_ONCE = 16  # that a process is sent, at most

Done: TypeAlias = "tuple[list[Any], Exception | None]"
MOST_ALONE = 4  # items that are not worth starting a process

LOOK_SECONDS = 1.0  # between looks of a worker whether its parent lives

Progress = Callable[[int, int], None]  # items done, items in all


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1; `Shard(1, 1)` is everything."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard must be I/N with 1 <= I <= N, got {self.index}/{self.count}")

    def select(self, items: list[Item]) -> list[Item]:
        """Every count-th item, so that parts are alike where neighbours are."""
        return items[self.index - 1 :: self.count]


def ordered_map(work: Callable[[Item], Result], items: Sequence[Item], workers: int = 1) -> Iterator[Result]:
    """`map` over processes: results in the order of the items, a few items ahead; one worker is this process.

    Python's threads would wait for each other here: the work of an image is many short pieces. The processes are
    forked, so that `work` may be any function and its data is shared, not sent; results must be picklable. Where there
    is no fork (not Linux), threads it is. An exception of `work` is raised where its result is due; all processes have
    ended when the iterator has, however it ends. Raises ValueError for fewer than one worker, SegkitError where a
    process is killed.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers == 1 or len(items) <= MOST_ALONE:
        yield from map(work, items)
        return
    yield work(items[0])  # here, so that the processes find compiled functions loaded
    items = items[1:]
    size = max(1, min(ITEMS_AT_ONCE, len(items) // (AHEAD * workers)))
    pieces = [items[start : start + size] for start in range(0, len(items), size)]
    if sys.platform == "linux":
        context = multiprocessing.get_context("fork")
        run: Callable[[Sequence[Any]], Done]
        pool: Executor = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work, os.getpid()))
        run = _run_here
    else:
        pool = ThreadPoolExecutor(workers)
        run = partial(_run, work)
    try:
        for results, error in _in_order(pool, run, pieces, AHEAD * workers):
            yield from results
            if error is not None:
                raise error
    except BrokenProcessPool:
        raise SegkitError("a worker process was killed", remedy="is the memory full? Use fewer --workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: Executor, run: Callable[[Sequence[Any]], Done], pieces: Sequence[Sequence[Any]], ahead: int
) -> Iterator[Done]:
    under_way: deque[Future[Done]] = deque()
    for piece in pieces:
        under_way.append(pool.submit(run, piece))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _run(work: Callable[[Any], Any], items: Sequence[Any]) -> Done:
    """The results up to the first exception, and that."""
    results: list[Any] = []
    try:
        for item in items:
            results.append(work(item))
    except Exception as error:
        return results, error
    return results, None


_work: Callable[[Any], Any]  # of a worker process


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    gc.freeze()  # looking for cycles among the parent's objects would copy the memory that they share
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, killed say: nobody else would end it."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def _run_here(items: Sequence[Any]) -> Done:
    return _run(_work, items)
