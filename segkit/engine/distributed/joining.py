"""How the ranks of a job find each other, and whether they reach each other."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

import detectron2.utils.comm as comm
import torch
import torch.distributed as dist

from segkit.engine.distributed.launch_plan import LaunchPlan
from segkit.engine.distributed.peers import (
    FAILED,
    LINGER_SECONDS,
    POLL_SECONDS,
    Failure,
    Peer,
    Peers,
    Store,
    ending_after,
    silence,
)
from segkit.utils.errors import ConfigError, JobError

logger = logging.getLogger(__name__)

START_TIMEOUT, DEFAULT_START_TIMEOUT = "SEGKIT_START_TIMEOUT", 120.0  # seconds
COLLECTIVE_SECONDS = 60.0
STORE_TIMEOUT = timedelta(seconds=30)
# Longer than any evaluation on rank 0 should take; ranks that die are noticed earlier, see heartbeat.py.
GROUP_TIMEOUT = timedelta(minutes=30)
HELLO, ROSTER, GIVEN_UP = "hello", "roster", "given_up"
MARGIN_SECONDS = 10.0  # that other ranks wait for rank 0 to name the missing ranks


def serve_store(host: str, port: int) -> dist.TCPStore:
    """Open the store where the ranks meet, in this process.

    Args:
        host: name or address of this machine.
        port: its port; 0: a free one.

    Returns:
        The store, which ends with the process.

    Raises:
        JobError: the port is in use.
    """
    try:
        if port:
            with socket.create_server(("", port)):  # its own error would be a page long
                pass
        return dist.TCPStore(host, port, None, True, timeout=STORE_TIMEOUT, wait_for_workers=False)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        problem = f"the processes cannot meet at port {port}: {reason}"
        remedy = "end the other job, or choose another port: --dist-url tcp://HOST:PORT, or MASTER_PORT under Slurm"
        raise JobError(problem, where=f"{host}:{port}", remedy=remedy) from None


def join(plan: LaunchPlan, timeout: float) -> Peers:
    """Meet the other ranks: every rank says hello with its host and process.

    Args:
        plan: the place of this process; of several ranks.
        timeout: seconds to wait for the others.

    Returns:
        The ranks.

    Raises:
        JobError: ranks do not come, which are named; or the port is in use.
        SystemExit: another rank prints this error.
    """
    deadline = time.monotonic() + timeout
    own_nonce = uuid.uuid4().hex
    me = Peer(plan.rank, socket.gethostname(), os.getpid(), plan.local_world_size, own_nonce)
    text = f"{plan.address}:{plan.port}, where the ranks meet, does not answer"
    with ending_after(timeout + 2 * MARGIN_SECONDS, lambda: text if plan.rank == 1 else None):
        if plan.rank == 0 and not plan.store_is_served:
            store = serve_store(plan.address, plan.port)
        else:
            store = _connect(plan, deadline, timeout)
        store.set(f"{HELLO}/{plan.rank}", json.dumps(asdict(me)))
        meet = _gather_roster if plan.rank == 0 else _await_roster
        start, roster = meet(store, plan, me, deadline, timeout)
        watch_store = dist.TCPStore(plan.address, plan.port, None, False, STORE_TIMEOUT, wait_for_workers=False)
    peers = Peers(plan, roster, dist.PrefixStore(start, store), dist.PrefixStore(start, watch_store))
    return peers


def connect_group(peers: Peers, device: str) -> None:
    """Make the process group of the job, and try a collective.

    Args:
        peers: the ranks.
        device: MODEL.DEVICE: NCCL for cuda, gloo for others.

    Raises:
        ConfigError: this machine has not enough GPUs.
        JobError: the ranks do not reach each other. A rank that does not answer is named, and the process ends.
    """
    plan = peers.plan
    backend, place = "gloo", torch.device("cpu")
    if device.startswith("cuda"):
        backend, place = "nccl", torch.device("cuda", find_gpu(plan))
        torch.cuda.set_device(place)
    group_store = dist.PrefixStore("group", peers.store)
    with ending_after(COLLECTIVE_SECONDS, functools.partial(_claim_silence, peers, backend)):
        try:
            dist.init_process_group(
                backend,
                store=group_store,
                rank=peers.rank,
                world_size=peers.world_size,
                timeout=GROUP_TIMEOUT,
                device_id=place if backend == "nccl" else None,
            )
            number = torch.ones(1, device=place)
            dist.all_reduce(number)
            if int(number.item()) != peers.world_size:
                raise JobError(f"expected a sum over {peers.world_size} ranks, got {number.item():g}")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            problem = f"{peers.roster[peers.rank]} does not reach the other ranks over {backend}: {reason}"
            raise JobError(problem, remedy=_advise(backend)) from error
        peers.share("answered", None)
        peers.wait_for("answered")
    comm.create_local_process_group(plan.local_world_size)


def disconnect_group() -> None:
    """Destroy the process group, and what Detectron2 remembers of it."""
    with suppress(RuntimeError):  # after an error of another rank
        if dist.is_initialized():
            dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm.create_local_process_group.cache_clear()
    comm._get_global_gloo_group.cache_clear()


def find_gpu(plan: LaunchPlan) -> int:
    """The GPU of this process; Slurm may show each task its own GPU only.

    Args:
        plan: the place of this process.

    Returns:
        Index of the GPU.

    Raises:
        ConfigError: this machine has fewer GPUs than processes.
    """
    gpus = torch.cuda.device_count()
    if (
        gpus == 1
        and os.environ.get("SLURM_LOCALID")
        and any(map(os.environ.get, ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK")))
    ):
        return 0
    if gpus < plan.local_world_size:
        problem = (
            f"MODEL.DEVICE is cuda, but {socket.gethostname()} has {gpus} GPUs for {plan.local_world_size} processes"
        )
        remedy = "start one process per GPU: --num-gpus, torchrun --nproc-per-node, or srun --ntasks-per-node"
        raise ConfigError(problem, remedy=remedy)
    return plan.local_rank


def _connect(plan: LaunchPlan, deadline: float, timeout: float) -> Store:
    """Connect to the store, once somebody listens: the store's own attempts print pages."""
    reason = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((plan.address, plan.port), timeout=POLL_SECONDS * 10):
                break
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(POLL_SECONDS)
    else:
        host = f" (host {plan.hosts[0]})" if plan.hosts else ""
        problem = f"rank {plan.rank} finds nobody at {plan.address}:{plan.port} within {timeout:g} s ({reason})"
        cause = f"rank 0{host} has not started, or the port is blocked"
        if plan.rank != 1 and plan.local_rank != 0:  # others say it
            raise SystemExit(FAILED)
        raise JobError(f"{problem}: {cause}", remedy=plan.hint or f"check its log; {START_TIMEOUT} sets the limit")
    return dist.TCPStore(plan.address, plan.port, None, False, STORE_TIMEOUT, wait_for_workers=False)


def _gather_roster(store: Store, plan: LaunchPlan, me: Peer, deadline: float, timeout: float) -> tuple[str, list[Peer]]:
    """Rank 0: list who has come, until every rank has seen itself in the list.

    After an elastic restart, the store may hold entries of the ranks before it. A rank only believes a list with its
    own nonce.
    """
    start, roster = "", [me]
    while True:
        texts = [_read(store, f"{HELLO}/{rank}") for rank in range(plan.world_size)]
        present = [Peer(**json.loads(text)) for text in texts if text]
        if present != roster:
            start, roster = uuid.uuid4().hex, present
            if len(present) == plan.world_size:
                store.set(ROSTER, json.dumps({"start": start, "roster": [asdict(peer) for peer in present]}))
        confirmed = {peer.rank for peer in present if peer.rank == 0 or store.check([f"{start}/seen/{peer.rank}"])}
        if len(confirmed) == plan.world_size:
            store.set(f"{start}/complete", "")
            return start, roster
        if time.monotonic() > deadline:
            is_whole = len(present) == plan.world_size
            arrived = confirmed if is_whole else {peer.rank for peer in present}
            store.set(GIVEN_UP, json.dumps([peer.nonce for peer in present]))
            time.sleep(LINGER_SECONDS)  # rank 0 may hold the store
            raise _name_missing(plan, arrived, present, timeout)
        time.sleep(POLL_SECONDS)


def _await_roster(store: Store, plan: LaunchPlan, me: Peer, deadline: float, timeout: float) -> tuple[str, list[Peer]]:
    while time.monotonic() < deadline + MARGIN_SECONDS:
        meeting = json.loads(_read(store, ROSTER) or "{}")
        roster = [Peer(**entry) for entry in meeting.get("roster", ())]
        if len(roster) == plan.world_size and roster[plan.rank].nonce == me.nonce:
            store.set(f"{meeting['start']}/seen/{plan.rank}", "")
            if store.check([f"{meeting['start']}/complete"]):
                return meeting["start"], roster
        if me.nonce in json.loads(_read(store, GIVEN_UP) or "[]"):  # rank 0 prints who is missing
            break
        if time.monotonic() > deadline and not store.check([f"{HELLO}/0"]):
            texts = [_read(store, f"{HELLO}/{rank}") for rank in range(plan.world_size)]
            present = [Peer(**json.loads(text)) for text in texts if text]
            if present[0].rank == plan.rank:
                raise _name_missing(plan, {peer.rank for peer in present}, present, timeout)
            break
        time.sleep(POLL_SECONDS)
    else:
        raise JobError(f"rank 0 does not answer rank {plan.rank} within {timeout:g} s", remedy="check its log")
    silence()
    time.sleep(LINGER_SECONDS)
    raise SystemExit(FAILED)


def _name_missing(plan: LaunchPlan, arrived: set[int], present: Sequence[Peer], timeout: float) -> JobError:
    hosts = {peer.rank // plan.local_world_size: peer.host for peer in present}
    names = []
    for rank in range(plan.world_size):
        if rank not in arrived:
            host = plan.hosts[rank] if plan.hosts else hosts.get(rank // plan.local_world_size, "")
            names.append(f"rank {rank} (host {host})" if host else f"rank {rank} (host unknown)")
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    problem = f"{', '.join(names[:8])}{more} of {plan.world_size} ranks did not start within {timeout:g} s"
    return JobError(problem, remedy=plan.hint or f"check the logs of that host; {START_TIMEOUT} sets the limit")


def check_machines(roster: Sequence[Peer]) -> None:
    """Check that consecutive ranks are the processes of one machine, as Detectron2 takes them.

    Args:
        roster: all ranks, in order.

    Raises:
        ConfigError: the machines have different numbers of processes, or their ranks are mixed.
    """
    sizes = {peer.local_world_size for peer in roster}
    if len(sizes) > 1:
        each = {peer.host: peer.local_world_size for peer in roster}
        numbers = ", ".join(f"{host} has {count}" for host, count in each.items())
        problem = f"the machines have different numbers of processes: {numbers}"
        raise ConfigError(problem, remedy="start the same number of processes on every machine")
    size = sizes.pop()
    for peer in roster:
        first = roster[peer.rank // size * size]
        if peer.host != first.host:
            problem = f"ranks {first.rank} and {peer.rank} are on {first.host} and {peer.host}, expected one machine"
            raise ConfigError(problem, remedy="give the ranks of a machine consecutive numbers: srun -m block")


def _claim_silence(peers: Peers, backend: str) -> str | None:
    """Name the ranks that have not answered in the first collective; ends the process."""
    answers = [peers.watch_store.check([f"answered/{rank}"]) for rank in range(peers.world_size)]
    silent = [rank for rank, has_answered in enumerate(answers) if not has_answered]
    problem = f"{peers.describe(silent)} did not answer in the first collective within {COLLECTIVE_SECONDS:g} s"
    suspects = tuple(rank for rank in silent if any(answers))
    failure = Failure(peers.rank, f"{problem}; {_advise(backend)}", suspects or (peers.world_size,))
    peers.end_with(peers.claim_failure(failure, peers.watch_store))


def _advise(backend: str) -> str:
    return f"check the network between the hosts, and {backend.upper()}_SOCKET_IFNAME, which names its interface"


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""
