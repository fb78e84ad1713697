"""A process pool gives the results of `map` in order; shards divide the items."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit.utils.errors import DatasetError, SegkitError
from segkit.utils.issues import ErrorCollector
from segkit.utils.process_pool import Shard, map_and_collect_errors, ordered_map
from tests.helpers.platforms import needs_worker_processes


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 3, 40])
def test_results_come_in_the_order_of_the_items(workers, number):
    def work(item):
        time.sleep(0.001 * (item * 7 % 4))  # later items may be done first
        return item * item

    assert list(ordered_map(work, range(number), workers)) == [item * item for item in range(number)]


@needs_worker_processes
def test_processes_work_at_once():
    meeting = multiprocessing.get_context("fork").Barrier(3, timeout=30)
    # The first is computed alone in this process; three of the other items must run at once.
    assert len(list(ordered_map(lambda item: item and meeting.wait(), range(10), workers=3))) == 10


def test_a_single_worker_is_the_current_process():
    assert set(ordered_map(lambda _: os.getpid(), range(30))) == {os.getpid()}


@needs_worker_processes
def test_several_workers_are_processes():
    assert len(set(ordered_map(lambda _: os.getpid(), range(300), workers=2))) > 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fork", [True, False])
def test_an_exception_is_raised_in_place_of_its_result(workers, fork, monkeypatch):
    if not fork:
        monkeypatch.setattr(sys, "platform", "darwin")
    results = ordered_map(lambda item: 1 // (item - 2), range(100), workers)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert multiprocessing.active_children() == []


@needs_worker_processes
def test_processes_end_with_the_generator():
    results = ordered_map(lambda item: item, range(1000), workers=3)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    assert multiprocessing.active_children()
    results.close()
    assert multiprocessing.active_children() == []


@needs_worker_processes
def test_a_killed_process_is_reported():
    with pytest.raises(SegkitError, match=r"a worker process was killed; .* fewer --workers"):
        list(ordered_map(lambda item: item and os.kill(os.getpid(), signal.SIGKILL), range(30), workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, -2])
def test_at_least_one_worker(workers):
    with pytest.raises(ValueError, match=f"workers must be at least 1, got {workers}"):
        list(ordered_map(abs, [1], workers))


@given(st.integers(0, 30), st.integers(1, 8))
def test_shards_divide_the_items_evenly(number, parts):
    items = list(range(number))
    shards = [Shard(index, parts).select(items) for index in range(1, parts + 1)]
    assert sorted(item for shard in shards for item in shard) == items
    lengths = [len(shard) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert Shard().select(items) == items


@pytest.mark.parametrize("shard", [(0, 1), (2, 1), (-1, 3), (1, 0)])
def test_shards_are_counted_from_one(shard):
    with pytest.raises(ValueError, match=r"shard must be I/N with 1 <= I <= N, got {}/{}".format(*shard)):
        Shard(*shard)


KILLED = """
import os, signal, time
from segkit.utils.process_pool import ordered_map
results = ordered_map(lambda item: (os.getpid(), time.sleep(0.01))[0], range(10_000), workers=2)
print(*{next(results) for _ in range(300)} - {os.getpid()}, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_worker_processes
def test_workers_do_not_outlive_a_killed_parent():
    ran = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    workers = [int(pid) for pid in ran.stdout.split()]
    assert ran.returncode == -signal.SIGKILL
    assert len(workers) == 2
    for _ in range(100):  # the pipes are closed, so they have ended; the system may take a moment
        if not any(Path(f"/proc/{pid}/stat").exists() and _runs(pid) for pid in workers):
            return
        time.sleep(0.1)
    raise AssertionError(f"of {workers} some still run")


TERMINATED_IN_FORK = """
import os, signal
from segkit.utils.process_pool import ordered_map
from segkit.utils.signals import raising_terminated
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))
with raising_terminated():
    list(ordered_map(lambda item: item, range(1000), workers=2))
"""


@needs_worker_processes
def test_a_request_to_end_while_workers_start_ends_all():
    """Python ignores exceptions in the callbacks of a fork, and a pool forgets a process whose start is cut short."""
    ran = subprocess.run([sys.executable, "-c", TERMINATED_IN_FORK], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGTERM, "")


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def square_or_error(item):
    if item % 7 == 3:
        raise DatasetError(f"item {item} is invalid")
    return item * item


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_items_are_collected_and_raised_at_the_end(workers):
    errors, steps, results = ErrorCollector(), [], []
    mapped = map_and_collect_errors(square_or_error, range(12), errors, workers, lambda *step: steps.append(step))
    with pytest.raises(DatasetError, match=r"2 problems:\n- item 3 is invalid\n- item 10 is invalid"):
        results.extend(mapped)
    assert results == [(item, item * item) for item in range(12) if item not in (3, 10)]
    assert steps == [(done, 12) for done in range(1, 13)]


def test_the_limit_of_errors_ends_the_work():
    results = map_and_collect_errors(square_or_error, range(100), ErrorCollector(limit=1), workers=2)
    with pytest.raises(DatasetError, match="item 3 is invalid"):
        list(results)
    assert multiprocessing.active_children() == []


def test_other_errors_are_raised_at_once_and_earlier_problems_count():
    with pytest.raises(ZeroDivisionError):
        list(map_and_collect_errors(lambda item: 1 // item, [1, 0], ErrorCollector()))
    errors = ErrorCollector()
    errors.add(DatasetError("found before"))
    with pytest.raises(DatasetError, match="found before"):
        list(map_and_collect_errors(square_or_error, [], errors))
