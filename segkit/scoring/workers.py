"""Work on many images in threads, results in order. Decoding and counting release Python's lock, so threads suffice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items under way or waiting per worker: what is kept in memory

Progress = Callable[[int, int], None]  # items done, items in all


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1; `Shard(1, 1)` is everything."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard must be I/N with 1 <= I <= N, got {self.index}/{self.count}")

    def of(self, items: list[Item]) -> list[Item]:
        """Every count-th item, so that parts are alike where neighbours are."""
        return items[self.index - 1 :: self.count]


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 1) -> Iterator[Result]:
    """`map` over threads: results in the order of the items, a few items ahead; one worker uses no thread.

    An exception of `work` is raised where its result is due; what is under way is then waited for, nothing is leaked.
    Raises ValueError for fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future[Result]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) >= AHEAD * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
