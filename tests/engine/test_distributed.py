"""Ranks of a job find each other, end together, and name a rank that is missing, stopped or killed."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed import PrefixStore, TCPStore

from segkit.engine.joining import check_machines, join, serve_store
from segkit.engine.launch_plan import LaunchPlan
from segkit.engine.peers import Peer, Peers, read_seconds
from segkit.utils.errors import ConfigError, JobError
from tests.helpers.ranks import find_free_port


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


@pytest.mark.parametrize("text", ["no", "0", "-1", "inf", "nan"])
def test_wrong_limits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKIT_START_TIMEOUT", text)
    with pytest.raises(ConfigError, match=f"SEGKIT_START_TIMEOUT: expected seconds, got '{text}'"):
        read_seconds("SEGKIT_START_TIMEOUT", 120)
    monkeypatch.setenv("SEGKIT_START_TIMEOUT", "")
    assert read_seconds("SEGKIT_START_TIMEOUT", 120) == 120
