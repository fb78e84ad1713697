"""One job in several processes: of torchrun, of Slurm, or of this one. All go the same way over torch.distributed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from segkit.engine.distributed.heartbeat import DEFAULT_PEER_TIMEOUT, PEER_TIMEOUT, Heartbeat
from segkit.engine.distributed.joining import (
    DEFAULT_START_TIMEOUT,
    START_TIMEOUT,
    check_machines,
    disconnect_group,
    join,
    serve_store,
)
from segkit.engine.distributed.launch_plan import SPAWN, TORCHRUN, LaunchPlan
from segkit.engine.distributed.peers import FAILED, Peers, ending_after, read_seconds
from segkit.utils.errors import JobError, SegkitError
from segkit.utils.signals import SIGNAL_BASE, Terminated, raising_terminated
from segkit.utils.terminal import escape_output

THREADS = "OMP_NUM_THREADS"
DEBUG = "SEGKIT_DEBUG"
LEAVE_SECONDS = 120.0  # for the others, if this rank was asked to end: rank 0 may be saving
END_SECONDS, STOP_SECONDS, KILL_SECONDS = 15.0, 60.0, 5.0
FORWARDED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name))
# What a command shows as one line; anything else is shown with the traceback of its process.
USER_ERRORS = (SegkitError, OSError, MemoryError, ImportError)


def run_ranks(plan: LaunchPlan, work: Callable[..., Any], *arguments: Any) -> None:
    """Run something as one rank of a job, or in processes of this machine that this call starts.

    Args:
        plan: of `plan_launch`.
        work: function of a module, called with the `Peers` and `arguments`. It connects the process group.
        arguments: its further arguments; they are pickled if processes are started.

    Raises:
        JobError: a process does not start, is killed or stopped; it is named.
        SystemExit: this rank ends because of an error that another rank prints.
        SegkitError: of `work`.
    """
    if plan.launcher == SPAWN:
        _spawn(plan, work, arguments)
        return
    with joined(plan) as peers:
        work(peers, *arguments)


@contextmanager
def joined(plan: LaunchPlan) -> Iterator[Peers]:
    """Meet the other ranks, watch them during the block, and leave together with them.

    Args:
        plan: the place of this process.

    Yields:
        The ranks.

    Raises:
        JobError: ranks do not come, see `join`.
    """
    if plan.world_size == 1:
        yield Peers(plan)
        return
    if THREADS not in os.environ:  # torchrun sets it to 1
        torch.set_num_threads(1)
    peer_timeout = read_seconds(PEER_TIMEOUT, DEFAULT_PEER_TIMEOUT)
    peers = join(plan, read_seconds(START_TIMEOUT, DEFAULT_START_TIMEOUT))
    heartbeat = Heartbeat(peers, peer_timeout)
    heartbeat.start()
    try:
        if peers.rank == 0:
            check_machines(peers.roster)
        yield peers
        peers.finish()
    except (KeyboardInterrupt, SystemExit) as request:
        if not peers.finish(timeout=LEAVE_SECONDS):  # only this rank was asked to end
            peers.fail(request)
        raise
    except Exception as error:
        if isinstance(error, RuntimeError):  # perhaps since another rank is gone: then the heartbeat ends this process
            _await_verdict(error, 2 * peer_timeout)
        peers.fail(error)
        raise
    finally:
        with ending_after(END_SECONDS, lambda: None):  # what waits for a rank that is gone
            disconnect_group()
        heartbeat.stop()
        peers.leave()


def _await_verdict(error: RuntimeError, seconds: float) -> None:
    text = str(error).lower()
    if any(word in text for word in ("connection", "gloo", "nccl", "peer", "socket", "timed out")):
        time.sleep(seconds)


def _spawn(plan: LaunchPlan, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Start the processes of this machine, and end with their error."""
    store = serve_store(plan.address, plan.port) if plan.machine_rank == 0 else None
    plan = replace(plan, port=store.port if store is not None else plan.port)
    context = torch.multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    receivers: list[Connection] = []
    for index in range(plan.local_world_size):
        receiver, sender = context.Pipe(duplex=False)
        target = (replace(plan, rank=plan.rank + index, local_rank=index), sender, work, arguments)
        process = context.Process(target=_run_spawned, args=target, name=f"rank {plan.rank + index}")
        process.start()
        sender.close()
        processes.append(process)
        receivers.append(receiver)
    try:
        with _forwarding(processes) as received:
            killed = _await(processes, received)
    finally:
        _end(processes)
    codes = [process.exitcode or 0 for process in processes]
    if received and any(codes):
        raise Terminated(received[0])
    if killed is not None:
        name = f"rank {plan.rank + killed} (host {socket.gethostname()}, pid {processes[killed].pid})"
        remedy = "if the memory was full, use fewer workers or smaller images; start again with --resume"
        raise JobError(f"{name} was killed by {signal.Signals(-codes[killed]).name}", remedy=remedy)
    for receiver in receivers:
        with contextlib.suppress(EOFError):
            if receiver.poll():
                raise receiver.recv()
    if any(codes):  # the processes have said why
        raise SystemExit(max(max(codes), FAILED))


def _run_spawned(plan: LaunchPlan, sender: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """The main function of a started process: it has torchrun's variables, and sends its error to its parent."""
    os.environ.update(
        RANK=str(plan.rank),
        LOCAL_RANK=str(plan.local_rank),
        WORLD_SIZE=str(plan.world_size),
        LOCAL_WORLD_SIZE=str(plan.local_world_size),
        MASTER_ADDR=plan.address,
        MASTER_PORT=str(plan.port),
    )
    try:
        with escape_output(), raising_terminated():
            run_ranks(replace(plan, launcher=TORCHRUN), work, *arguments)
    except KeyboardInterrupt:
        sys.exit(SIGNAL_BASE + signal.SIGINT)
    except Exception as error:
        if not isinstance(error, USER_ERRORS) or os.environ.get(DEBUG, "") not in ("", "0"):
            traceback.print_exc()
        if isinstance(error, USER_ERRORS):
            sender.send(error)
        sys.exit(FAILED)


@contextmanager
def _forwarding(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Send signals on to the ranks, which save before they end. Yields the list of those that came."""
    received: list[int] = []

    def forward(number: int, _frame: Any) -> None:
        received.append(number)
        for process in processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)

    earlier: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # another thread than the main one gets no signals
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                earlier[number] = signal.signal(number, forward)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _await(processes: Sequence[BaseProcess], received: Sequence[int]) -> int | None:
    """Wait for the processes; the index of one that was killed, which the others cannot know.

    If one has failed, or they were asked to end, the others have some seconds left.
    """
    deadline = None
    while any(process.is_alive() for process in processes):
        wait([process.sentinel for process in processes if process.is_alive()], timeout=1.0)
        now, codes = time.monotonic(), [process.exitcode for process in processes]
        if any(code is not None and code < 0 for code in codes):
            return next(index for index, code in enumerate(codes) if code is not None and code < 0)
        if deadline is None and any(codes):
            deadline = now + END_SECONDS
        if deadline is None and any(number != getattr(signal, "SIGUSR2", None) for number in received):
            deadline = now + STOP_SECONDS
        if deadline is not None and now > deadline:
            break
    return None


def _end(processes: Sequence[BaseProcess]) -> None:
    """End what still runs. A stopped process does not obey SIGTERM."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + KILL_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
