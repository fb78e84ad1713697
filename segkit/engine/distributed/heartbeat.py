"""Every rank says that it lives; a rank that falls silent is named, and the job ends.

A rank that is stopped, killed or cut off leaves the others in a collective, which waits half an hour and cannot be
interrupted. Therefore threads watch: they run while the main thread computes, evaluates or waits.
"""

from __future__ import annotations

import json
import os
import threading
import time

from segkit.engine.distributed.peers import FAILED, FAILURE, Failure, Peers, print_line, silence

PEER_TIMEOUT, DEFAULT_PEER_TIMEOUT = "SEGKIT_PEER_TIMEOUT", 60.0  # seconds
BEATS = 12  # beats within the time-out
CHECK_SECONDS = 0.5  # how often a rank looks for failures of others


class Heartbeat:
    """The threads of one rank: one speaks to the store, the other watches the first.

    Args:
        peers: the ranks.
        timeout: seconds after which a silent rank is given up.
    """

    def __init__(self, peers: Peers, timeout: float) -> None:
        self._peers, self._timeout = peers, timeout
        self._stopped = threading.Event()
        self._last_round = time.monotonic()

    def start(self) -> None:
        """Start both threads."""
        self._peers.watch_store.set(f"beat/{self._peers.rank}", "0")
        for target in (self._watch_peers, self._watch_store):
            threading.Thread(target=target, name=f"segkit {target.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, at the end of the job."""
        self._stopped.set()

    def _watch_peers(self) -> None:
        try:
            self._beat()
        except RuntimeError:  # the store is gone, and the process that holds it
            if not self._stopped.wait(CHECK_SECONDS):
                self._end_without_store("has ended")

    def _beat(self) -> None:
        peers, store, period = self._peers, self._peers.watch_store, self._timeout / BEATS
        keys = [f"beat/{rank}" for rank in range(peers.world_size)]
        beats: list[bytes] = []
        changed: list[float] = []  # when each rank's beat was seen to change
        last, count = 0.0, 0
        while not self._stopped.wait(min(CHECK_SECONDS, period)):
            self._last_round = now = time.monotonic()
            if store.check([FAILURE]):
                self._end_with(Failure(**json.loads(store.get(FAILURE))))
                return
            if now - last < period or not store.check(keys):
                continue
            count += 1
            store.set(keys[peers.rank], str(count))
            if now - last > self._timeout / 2:  # this process has just begun, or was stopped itself
                beats, changed = [], [now] * peers.world_size
            last, earlier, beats = now, beats, store.multi_get(keys)
            if earlier:
                pairs = zip(earlier, beats, changed, strict=True)
                changed = [time_ if old == new else now for old, new, time_ in pairs]
            silent = [r for r in range(peers.world_size) if r != peers.rank and now - changed[r] > self._timeout]
            if silent and not self._stopped.is_set():
                self._end_with(peers.claim_failure(self._describe(silent), store))

    def _describe(self, silent: list[int]) -> Failure:
        problem = f"{self._peers.describe(silent)} gave no sign of life for {self._timeout:g} s"
        text = f"{problem}: stopped, killed or cut off; the job ends; start it again with --resume"
        return Failure(self._peers.rank, text, tuple(silent))

    def _end_with(self, failure: Failure) -> None:
        """The main thread ends this process if the failure is its own error."""
        if failure.rank != self._peers.rank or failure.suspects:
            self._peers.end_with(failure)

    def _watch_store(self) -> None:
        """Notice that the store does not answer: then the other thread waits in it."""
        last = time.monotonic()
        while not self._stopped.wait(CHECK_SECONDS):
            now = time.monotonic()
            if now - last > self._timeout / 2:  # this process was stopped itself
                self._last_round = now
            last = now
            if now - self._last_round > self._timeout:
                self._end_without_store(f"has not answered for {self._timeout:g} s: stopped, killed or cut off")

    def _end_without_store(self, what: str) -> None:
        """The ranks cannot speak to each other: the first of each machine prints the line."""
        peers = self._peers
        served = f"the launcher at {peers.plan.address}:{peers.plan.port}"
        holder = served if peers.plan.store_is_served else str(peers.roster[0])
        if peers.plan.local_rank == 0 or peers.rank == 1:
            print_line(f"{holder}, where the ranks meet, {what}; the job ends; start it again with --resume")
        silence()
        os._exit(FAILED)
