"""Work on many items in several processes, with results in order and no process left behind."""

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

from segkit.utils import signals
from segkit.utils.errors import DatasetError, SegkitError
from segkit.utils.issues import ErrorCollector

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # chunks under way or waiting per worker: what is kept in memory
MAX_CHUNK = 16  # items that a process is sent at once, at most
MAX_ITEMS_ALONE = 4  # items that are not worth starting a process
PARENT_CHECK_SECONDS = 1.0  # between checks of a worker whether its parent is alive

Progress = Callable[[int, int], None]  # items done, items in all
ChunkResult: TypeAlias = "tuple[list[Any], Exception | None]"
RunChunk: TypeAlias = Callable[[Sequence[Any]], ChunkResult]


@dataclass(frozen=True)
class Shard:
    """Part of a list of images; `Shard(1, 1)` is everything.

    Args:
        index: Number of the part, 1..count.
        count: Number of parts.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard must be I/N with 1 <= I <= N, got {self.index}/{self.count}")

    def select(self, items: list[Item]) -> list[Item]:
        """Select every count-th item, so that the parts are alike if neighbours are.

        Args:
            items: All items.

        Returns:
            The items of this part, in their order.
        """
        return items[self.index - 1 :: self.count]


EVERYTHING = Shard()


def count_cpus() -> int:
    """Count the CPUs that this process may use.

    Returns:
        Their number, at least 1.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int = 1, progress: Progress | None = None
) -> Iterator[Result]:
    """`map` over processes; one worker is this process.

    Python's threads would wait for each other: the work of an image is many short steps. The processes are forked, so
    that `work` may be any function and its data is shared, not sent. Without fork (not Linux) there are threads. All
    processes have ended when the iterator has, however it ends.

    Args:
        work: Function of an item; its results can be pickled.
        items: The items.
        workers: Number of processes, at least 1.
        progress: Called with (items done, items in all) after each item.

    Yields:
        The results in the order of the items. An exception of `work` is raised in place of its result.

    Raises:
        ValueError: There are fewer than one worker.
        SegkitError: A process was killed.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    for done, result in enumerate(_map(work, items, workers), 1):
        yield result
        if progress is not None:
            progress(done, len(items))


def map_and_collect_errors(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    errors: ErrorCollector,
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[tuple[Item, Result]]:
    """`ordered_map` that collects DatasetErrors of single items and goes on.

    Args:
        work: Function of an item; its results can be pickled.
        items: The items.
        errors: Gets the DatasetErrors of `work`.
        workers: Number of processes, at least 1.
        progress: Called with (items done, items in all) after each item.

    Yields:
        (item, result) of every item without an error, in order.

    Raises:
        DatasetError: At the end if there are errors, or as soon as `errors` has reached its limit.
        ValueError: There are fewer than one worker.
        SegkitError: A process was killed.
    """

    def work_or_error(item: Item) -> Result | DatasetError:
        try:
            return work(item)
        except DatasetError as error:
            return error

    for item, result in zip(items, ordered_map(work_or_error, items, workers, progress), strict=True):
        if isinstance(result, DatasetError):
            errors.add(result)
        else:
            yield item, result
    errors.check()


def _map(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers == 1 or len(items) <= MAX_ITEMS_ALONE:
        yield from map(work, items)
        return
    yield work(items[0])  # in this process, so that the others inherit compiled functions
    items = items[1:]
    size = max(1, min(MAX_CHUNK, len(items) // (AHEAD * workers)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    run: RunChunk
    if sys.platform == "linux":
        context = multiprocessing.get_context("fork")
        initargs = work, os.getpid()
        pool: Executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=initargs)
        run = _run_in_worker
    else:
        pool = ThreadPoolExecutor(workers)
        run = partial(_run, work)
    try:
        for results, error in _run_chunks(pool, run, chunks, AHEAD * workers):
            yield from results
            if error is not None:
                raise error
    except BrokenProcessPool:
        raise SegkitError("a worker process was killed", remedy="is the memory full? Use fewer --workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_chunks(pool: Executor, run: RunChunk, chunks: Sequence[Sequence[Any]], ahead: int) -> Iterator[ChunkResult]:
    under_way: deque[Future[ChunkResult]] = deque()
    for chunk in chunks:
        with signals.holding_back():  # it may start a process, of which the pool must know
            under_way.append(pool.submit(run, chunk))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _run(work: Callable[[Any], Any], items: Sequence[Any]) -> ChunkResult:
    """The results up to the first exception, and that exception."""
    results: list[Any] = []
    try:
        for item in items:
            results.append(work(item))
    except Exception as error:
        return results, error
    return results, None


_work: Callable[[Any], Any]  # of a worker process
_is_working = _should_end = False


def _start_worker(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    gc.freeze()  # a search for cycles among the parent's objects would copy the memory that they share
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    for number in signals.SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end_after_cleanup)
    signals.stop_holding_back()


def _end_after_cleanup(number: int, _frame: object) -> None:
    """Signal handler: `finally` blocks of the work run, and a result that is being sent is sent whole."""
    global _should_end
    _should_end = True
    if _is_working:
        signals.raise_terminated(number)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, for example killed, or when it was asked to end and is idle."""
    while os.getppid() == parent and not (_should_end and not _is_working):
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _run_in_worker(items: Sequence[Any]) -> ChunkResult:
    global _is_working
    try:
        _is_working = True
        result = _run(_work, items)
        _is_working = False
        return result
    except signals.Terminated as request:
        os._exit(int(request.code or 1))
