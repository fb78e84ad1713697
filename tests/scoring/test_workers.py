"""Work in threads gives what `map` gives, in its order; shards part the work."""

import threading
import time
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit.scoring.workers import AHEAD, Shard, ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 3, 40])
def test_results_come_in_the_order_of_the_items(workers, number):
    def work(item):
        time.sleep(0.001 * (item * 7 % 4))  # later items may be done first
        return item * item

    assert list(ordered_map(work, range(number), workers)) == [item * item for item in range(number)]


def test_threads_work_at_once():
    meeting = threading.Barrier(3, timeout=10)
    assert len(list(ordered_map(lambda _: meeting.wait(), range(3), workers=3))) == 3


def test_one_worker_uses_no_thread():
    assert set(ordered_map(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_taken_a_few_ahead(workers):
    taken = []
    items = (taken.append(item) or item for item in count())
    results = ordered_map(lambda item: item, items, workers)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    assert len(taken) <= 5 + AHEAD * workers
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_where_its_result_is_due(workers):
    before = threading.active_count()
    results = ordered_map(lambda item: 1 // (item - 2), range(100), workers)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert threading.active_count() == before


def test_threads_end_with_the_generator():
    before = threading.active_count()
    results = ordered_map(lambda item: item, range(100), workers=3)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, -2])
def test_at_least_one_worker(workers):
    with pytest.raises(ValueError, match=f"workers must be at least 1, got {workers}"):
        list(ordered_map(abs, [1], workers))


@given(st.integers(0, 30), st.integers(1, 8))
def test_shards_part_the_items_evenly(number, parts):
    items = list(range(number))
    shards = [Shard(index, parts).of(items) for index in range(1, parts + 1)]
    assert sorted(item for shard in shards for item in shard) == items
    lengths = [len(shard) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert Shard().of(items) == items


@pytest.mark.parametrize("shard", [(0, 1), (2, 1), (-1, 3), (1, 0)])
def test_shards_are_counted_from_one(shard):
    with pytest.raises(ValueError, match=r"shard must be I/N with 1 <= I <= N, got {}/{}".format(*shard)):
        Shard(*shard)
