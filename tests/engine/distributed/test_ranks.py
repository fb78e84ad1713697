"""Ranks of a job find each other, end together, and name a rank that is missing, stopped or killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed import PrefixStore, TCPStore

from segkit.engine.distributed import joining
from segkit.engine.distributed.joining import check_machines, join, serve_store
from segkit.engine.distributed.launch_plan import LaunchPlan
from segkit.engine.distributed.peers import Failure, Peer, Peers, read_seconds
from segkit.utils.errors import ConfigError, JobError
from tests.helpers.ranks import find_free_port, start


def plan_ranks(count: int, port: int, **fields: Any) -> list[LaunchPlan]:
    return [LaunchPlan("slurm", rank, rank, count, count, "127.0.0.1", port, **fields) for rank in range(count)]


def meet(plans: list[LaunchPlan], timeout: float = 20) -> list[Peers]:
    with ThreadPoolExecutor(len(plans)) as pool:
        return list(pool.map(lambda plan: join(plan, timeout), plans))


def test_ranks_meet_and_exchange_values() -> None:
    ranks = meet(plan_ranks(2, find_free_port()))
    assert [[peer.rank for peer in peers.roster] for peers in ranks] == [[0, 1], [0, 1]]
    assert {(peer.host, peer.pid) for peer in ranks[1].roster} == {(socket.gethostname(), os.getpid())}
    with ThreadPoolExecutor(2) as pool:
        collected = list(pool.map(lambda peers: peers.collect("value", peers.rank * 10), ranks))
        order: list[int] = []
        list(pool.map(lambda peers: peers.main_first("step", lambda: order.append(peers.rank)), reversed(ranks)))
    assert collected == [[0, 10], [0, 10]]
    assert order == [0, 1]


def test_ranks_of_an_earlier_start_are_not_met() -> None:
    """torchrun's agent keeps its store when it starts the ranks again."""
    store = serve_store("127.0.0.1", 0)
    old = {"rank": 1, "host": "gone", "pid": 1, "local_world_size": 2, "nonce": "old"}
    store.set("hello/1", json.dumps(old))
    store.set("roster", json.dumps({"start": "s", "roster": [{**old, "rank": 0}, old]}))
    store.set("failure", "{}")
    plans = plan_ranks(2, store.port, store_is_served=True)
    first = ThreadPoolExecutor(1).submit(join, plans[0], 20)
    time.sleep(0.5)  # rank 0 has read the old entry
    second = join(plans[1], 20)
    assert first.result().roster == second.roster
    assert second.roster[1].pid == os.getpid()
    assert not second.store.check(["failure"])


@pytest.mark.parametrize(("fields", "host"), [({}, ""), ({"hosts": ("a", "gpu07")}, "gpu07")])
def test_a_rank_that_does_not_come_is_named(fields: dict[str, Any], host: str) -> None:
    host = host or socket.gethostname()  # of rank 0, on the same machine
    plans = plan_ranks(2, find_free_port(), hint="start it with srun", **fields)
    message = rf"^rank 1 \(host {host}\) of 2 ranks did not start within 0.3 s; start it with srun$"
    with pytest.raises(JobError, match=message):
        join(plans[0], timeout=0.3)


def test_without_rank_0_each_machine_says_so_once() -> None:
    port = find_free_port()
    plans = [LaunchPlan("slurm", rank, rank, 3, 3, "127.0.0.1", port, hosts=("gpu01",) * 3) for rank in (1, 2)]
    with pytest.raises(JobError, match=rf"rank 1 finds nobody at 127.0.0.1:{port} .*: rank 0 \(host gpu01\) has not"):
        join(plans[0], timeout=0.3)
    with pytest.raises(SystemExit, match="1"):
        join(plans[1], timeout=0.3)


def test_a_port_in_use() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(JobError) as caught:
            join(plan_ranks(2, port)[0], timeout=1)
    assert str(caught.value).startswith(f"127.0.0.1:{port}: the processes cannot meet at port {port}: Address already")
    assert "--dist-url tcp://HOST:PORT, or MASTER_PORT" in str(caught.value)


def build_roster(hosts: str, sizes: tuple[int, ...]) -> list[Peer]:
    return [Peer(rank, host, 1, size, "") for rank, (host, size) in enumerate(zip(hosts, sizes, strict=True))]


def test_ranks_of_a_machine_follow_each_other() -> None:
    check_machines(build_roster("aabb", (2, 2, 2, 2)))
    with pytest.raises(ConfigError, match=r"ranks 0 and 1 are on a and b, expected one machine; .* srun -m block"):
        check_machines(build_roster("abab", (2, 2, 2, 2)))
    with pytest.raises(ConfigError, match="different numbers of processes: a has 2, b has 1"):
        check_machines(build_roster("aab", (2, 2, 1)))


def test_the_first_failure_is_the_one_that_all_end_with() -> None:
    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    plans = plan_ranks(2, server.port)
    roster = build_roster("ab", (2, 2))
    ranks = [Peers(plan, roster, PrefixStore("x", server), PrefixStore("x", server)) for plan in plans]

    def acknowledge() -> None:  # what the heartbeat of the other rank does
        while not server.check(["x/failure"]):
            time.sleep(0.01)
        ranks[0].share("acknowledged", None)

    thread = threading.Thread(target=acknowledge)
    thread.start()
    with pytest.raises(SystemExit, match="1"):  # rank 0 prints it
        ranks[1].fail(ConfigError("wrong"))
    thread.join()
    assert json.loads(server.get("x/failure")) == {"rank": 1, "text": "wrong", "suspects": []}


def test_the_ranks_that_do_not_answer_the_first_collective_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of 3 has answered, rank 0 waits for rank 2."""
    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    store = PrefixStore("x", server)
    store.set("answered/1", "null")
    peers = Peers(plan_ranks(3, server.port)[0], build_roster("abc", (1, 1, 1)), store, store)
    failures: list[Failure] = []
    has_ended = threading.Event()

    def end_with(_: Peers, failure: Failure) -> None:  # it would end this process
        failures.append(failure)
        has_ended.set()
        threading.Event().wait()

    def hang(*_: object, **__: object) -> None:
        assert has_ended.wait(timeout=20)
        raise RuntimeError("cut off")

    monkeypatch.setattr(Peers, "end_with", end_with)
    monkeypatch.setattr(joining, "COLLECTIVE_SECONDS", 0.2)
    monkeypatch.setattr("torch.distributed.init_process_group", hang)
    with pytest.raises(JobError, match=r"rank 0 \(host a, pid 1\) does not reach the other ranks over gloo: cut off"):
        joining.connect_group(peers, "cpu")
    silent = "rank 0 (host a, pid 1), rank 2 (host c, pid 1)"
    assert failures[0].text.startswith(
        f"{silent} did not answer in the first collective within 0.2 s; check the network"
    )
    assert failures[0].suspects == (0, 2)


@pytest.mark.parametrize("text", ["no", "0", "-1", "inf", "nan"])
def test_wrong_limits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKIT_START_TIMEOUT", text)
    with pytest.raises(ConfigError, match=f"SEGKIT_START_TIMEOUT: expected seconds, got '{text}'"):
        read_seconds("SEGKIT_START_TIMEOUT", 120)
    monkeypatch.setenv("SEGKIT_START_TIMEOUT", "")
    assert read_seconds("SEGKIT_START_TIMEOUT", 120) == 120


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
NUM_GPUS = {"NUM_GPUS": "2"}
HOST = socket.gethostname()


def list_lines(text: str) -> list[str]:
    """The lines of ranks, without those of torchrun's agent."""
    return [line for line in text.splitlines() if line.startswith(("segkit: ", "error: "))]


def test_a_stopped_rank_is_named_and_the_others_end() -> None:
    with start("stopped", count=2, SEGKIT_PEER_TIMEOUT="2") as (rank_0, rank_1):
        output, errors = rank_0.communicate(timeout=120)
        assert rank_0.returncode == 1
        assert rank_1.poll() is None  # it is still stopped, as a process is that hangs in a driver
    assert output == "sum 3, local rank 0 of 2\n"
    message = f"segkit: rank 1 (host {HOST}, pid {rank_1.pid}) gave no sign of life for 2 s: stopped, killed or cut off"
    assert [line.partition(";")[0] for line in errors.splitlines()] == [message]


@pytest.mark.slow
def test_a_stopped_rank_that_holds_the_store_is_named() -> None:
    with start("rank 0 is stopped", count=2, SEGKIT_PEER_TIMEOUT="2") as (rank_0, rank_1):
        _, errors = rank_1.communicate(timeout=120)
        assert rank_1.returncode == 1
    start_of_line = f"segkit: rank 0 (host {HOST}, pid {rank_0.pid}), where the ranks meet, has not answered for 2 s"
    assert [line.partition(":")[0] + ":" + line.split(":")[1] for line in errors.splitlines()] == [start_of_line]


@pytest.mark.slow
def test_a_killed_rank_is_named() -> None:
    with start("killed", count=2, SEGKIT_PEER_TIMEOUT="2") as (rank_0, rank_1):
        _, errors = rank_0.communicate(timeout=120)
        assert (rank_0.returncode, rank_1.wait()) == (1, -signal.SIGKILL)
    assert errors.startswith(f"segkit: rank 1 (host {HOST}, pid {rank_1.pid}) gave no sign of life for 2 s")
    assert "Traceback" not in errors
    with start("killed", **NUM_GPUS) as (parent,):
        _, errors = parent.communicate(timeout=120)
        assert parent.returncode == 1
    assert re.fullmatch(rf"error: rank 1 \(host {HOST}, pid \d+\) was killed by SIGKILL; .*\n", errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "launcher"),
    [
        ("error of rank 0", "torchrun"),
        ("error of rank 0", "slurm"),
        ("error of the last rank", "num_gpus"),
        ("late error", "torchrun"),
        ("rank 0 is slow", "slurm"),
    ],
)
def test_an_error_is_printed_once_and_every_rank_ends(mode: str, launcher: str) -> None:
    words = TORCHRUN if launcher == "torchrun" else ()
    variables = {**(NUM_GPUS if launcher == "num_gpus" else {}), "SEGKIT_PEER_TIMEOUT": "2"}
    with start(mode, *words, count=2 if launcher == "slurm" else 1, **variables) as processes:
        texts = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    errors = "".join(text[1] for text in texts)
    if mode == "rank 0 is slow":
        assert codes == [0] * len(codes), errors
        assert "".join(text[0] for text in texts).count("sum 3") == 2
        return
    assert codes == [1] * len(codes)
    name = "error: " if mode == "error of rank 0" else rf"segkit: rank 1 \(host {HOST}, pid \d+\): "
    assert len(list_lines(errors)) == 1
    assert re.fullmatch(name + "a wrong config", list_lines(errors)[0])
    assert launcher == "torchrun" or "Traceback" not in errors


@pytest.mark.slow
def test_the_traceback_of_a_fault_is_shown_by_its_rank_alone() -> None:
    with start("fault", **NUM_GPUS) as (parent,):
        _, errors = parent.communicate(timeout=120)
        assert parent.returncode == 1
    assert errors.count("Traceback") == 1
    assert errors.count("ValueError: a fault") == 2
    assert re.search(rf"^segkit: rank 1 \(host {HOST}, pid \d+\): ValueError: a fault$", errors, re.MULTILINE)


@pytest.mark.slow
def test_a_rank_that_does_not_answer_the_first_collective_is_named_and_none_hangs() -> None:
    """It lives, as a process does that waits for a driver or a lock: the heartbeat has nothing to say."""
    with start("no answer", count=3, COLLECTIVE_SECONDS="4") as ranks:
        begin = time.monotonic()
        texts = [process.communicate(timeout=120) for process in ranks]
        assert time.monotonic() - begin < 90  # most of it loads torch
    assert [process.returncode for process in ranks] == [1, 1, 1]
    lines = [line for _, errors in texts for line in errors.splitlines()]
    assert len(lines) == 1, lines
    silent = ", ".join(f"rank {rank} (host {HOST}, pid {process.pid})" for rank, process in enumerate(ranks))
    expected = f"segkit: {silent} did not answer in the first collective within 4 s; check the network between"
    assert lines[0].startswith(expected)
