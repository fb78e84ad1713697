"""Two trainings in one folder: one is refused, and a killed one is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from segkit.engine import run_lock
from segkit.engine.run_lock import RunLockError, hold_run_folder
from segkit.utils.errors import DatasetError

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def start(work: Callable[..., None], *arguments: Any) -> ForkProcess:
    process = ForkProcess(target=work, args=arguments)
    process.start()
    return process


def hold_for_ever(folder: Path) -> None:
    with hold_run_folder(folder):
        (folder / "ready").touch()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the folder."""
    process = start(hold_for_ever, tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.001)
    yield process
    process.kill()
    process.join()


def write_lock(folder: Path, age: float = 0.0, **changes: Any) -> None:
    """The lock of a process on another machine, last renewed so many seconds ago."""
    with hold_run_folder(folder):
        content = json.loads((folder / "run.lock").read_text())
    content |= {"token": "0a" * 8, "host": "node-7", "machine": "00000000", "pid": 1, **changes}
    (folder / "run.lock").write_text(json.dumps(content))
    os.utime(folder / "run.lock", (time.time() - age,) * 2)


def is_refused(folder: Path) -> bool:
    try:
        with hold_run_folder(folder):
            return False
    except RunLockError:
        return True


def test_the_lock_says_who_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    with hold_run_folder(tmp_path / "new") as lock:
        content = json.loads((tmp_path / "new/run.lock").read_text())
        assert (content["pid"], content["job"], content["host"]) == (os.getpid(), "42", os.uname().nodename)
        assert content["renewed"].endswith("Z")
        lock.check()
        assert is_refused(tmp_path / "new"), "by this process too"
    assert [*(tmp_path / "new").iterdir()] == []


def test_a_second_training_is_refused_in_one_line(tmp_path: Path, holder: ForkProcess) -> None:
    with pytest.raises(RunLockError) as caught, hold_run_folder(tmp_path):
        pass
    start_of_line = f"{tmp_path}/run.lock: process {holder.pid} on {os.uname().nodename}, started 2"
    assert str(caught.value).startswith(start_of_line)
    assert str(caught.value).endswith(" s ago; stop it, or name another OUTPUT_DIR")
    assert "\n" not in str(caught.value)
    holder.kill()
    holder.join()
    assert (tmp_path / "run.lock").exists()
    assert not is_refused(tmp_path), "a killed process holds nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_a_process_with_the_number_of_a_dead_one_is_not_the_holder(tmp_path: Path) -> None:
    machine = run_lock.get_machine()
    write_lock(tmp_path, machine=machine, pid=os.getpid(), process_start=7)
    assert not is_refused(tmp_path)
    write_lock(tmp_path, machine=machine, pid=os.getpid(), process_start=run_lock.get_process_start(os.getpid()))
    assert is_refused(tmp_path)


@pytest.mark.parametrize(
    ("job", "age", "refused"),
    [("", 0, True), ("", 170, True), ("", 190, False), ("42", 0, False), ("43", 0, True), ("43", 190, False)],
)
def test_locks_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, age: float, refused: bool
) -> None:
    """This job, 42, was requeued on another machine; one without a job number is never taken for it."""
    write_lock(tmp_path, age, job=job)
    monkeypatch.setenv("SLURM_JOB_ID", "42" if job else "")
    assert is_refused(tmp_path) == refused


def test_the_refusal_says_when_the_folder_is_free(tmp_path: Path) -> None:
    write_lock(tmp_path, age=100, job="9")
    expected = r"process 1 on node-7, job 9, .* sign of life 100 s ago; .*; if it was killed, start again in 80 s"
    with pytest.raises(RunLockError, match=expected), hold_run_folder(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": {}}', "\0" * 9])
def test_a_damaged_lock_is_held_until_it_is_old(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.lock").write_text(content)
    assert is_refused(tmp_path)
    os.utime(tmp_path / "run.lock", (time.time() - 200,) * 2)
    assert not is_refused(tmp_path)


def test_of_many_processes_one_takes_over(tmp_path: Path) -> None:
    """Sixteen at once, three times; the holder keeps the lock until all others are refused."""
    for number in range(3):
        write_lock(tmp_path, age=200)
        (tmp_path / f"{number}").mkdir()

        def compete(rank: int, results: Path) -> None:
            try:
                with hold_run_folder(tmp_path):
                    (results / f"{rank} holds").touch()
                    while len([*results.iterdir()]) < 16:
                        time.sleep(0.01)
            except RunLockError:
                (results / f"{rank} refused").touch()

        processes = [start(compete, rank, tmp_path / f"{number}") for rank in range(16)]
        for process in processes:
            process.join()
        assert len([*(tmp_path / f"{number}").glob("* holds")]) == 1
        assert len([*(tmp_path / f"{number}").glob("* refused")]) == 15
        assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(number + 1)]


def test_a_claim_of_a_killed_process_is_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "TAKEOVER_SECONDS", 0.2)
    write_lock(tmp_path, age=200)
    claim = tmp_path / f"run.lock.{'0a' * 8}"
    claim.touch()
    with pytest.raises(RunLockError, match="another process is taking over"), hold_run_folder(tmp_path):
        pass
    os.utime(claim, (time.time() - 200,) * 2)
    assert not is_refused(tmp_path)


def test_the_holder_renews_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEWAL_SECONDS", 0.02)
    path = tmp_path / "run.lock"
    with hold_run_folder(tmp_path):
        os.utime(path, (0, 0))
        wait_until(lambda: path.stat().st_mtime > 0)
        path.unlink()
        wait_until(path.exists)
    assert not path.exists()


def test_a_training_that_lost_its_folder_stops_and_leaves_the_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.lock"
    with hold_run_folder(tmp_path) as first:
        first._ending.set()  # the thread is stopped, as with the process
        first._thread.join()
        os.utime(path, (time.time() - 200,) * 2)
        second = start(hold_for_ever, tmp_path)
        wait_until((tmp_path / "ready").exists)
        taken = path.read_bytes()
        first._write()  # a write that was half done when the process was stopped
        assert path.read_bytes() == taken
        first.check()
        first.renew()
        with pytest.raises(RunLockError, match=r"was stopped for more than 180 s, and lost .* process \d+ on "):
            first.check()
    assert path.read_bytes() == taken
    second.kill()
    second.join()


def test_a_stopped_process_is_taken_over_after_three_minutes(tmp_path: Path, holder: ForkProcess) -> None:
    assert holder.pid
    os.kill(holder.pid, signal.SIGSTOP)
    assert is_refused(tmp_path)
    os.utime(tmp_path / "run.lock", (time.time() - 200,) * 2)
    assert not is_refused(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"run\.lock: cannot be written"), hold_run_folder(tmp_path / "file"):
        pass


def test_leftovers_of_other_machines_go_if_they_are_idle(tmp_path: Path) -> None:
    young, old = (tmp_path / f".segkit-00000000-1-{n}-{'0' * 16}.tmp" for n in (1, 2))
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 700,) * 2)
    with hold_run_folder(tmp_path):
        assert young.exists()
        assert not old.exists()


def test_no_thread_stays(tmp_path: Path) -> None:
    before = threading.active_count()
    with hold_run_folder(tmp_path):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)
