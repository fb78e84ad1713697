"""Two machines made of network namespaces, each with its own network and a cable between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

COUNT = 2


def _run(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Machine:
    """One of the machines: `command` runs something there, `interface` and `address` are its network's."""

    def __init__(self, index: int) -> None:
        self.name = f"segkit{os.getpid()}-{index}"
        self.interface = f"sk{os.getpid() % 100_000}v{index}"
        self.address = f"10.77.0.{index + 1}"
        self.command = ["ip", "netns", "exec", self.name]

    def power_off(self) -> None:
        """Kill every process there, at once."""
        for pid in _run("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def connect_machines() -> Iterator[list[Machine]]:
    """Make the machines; the test is skipped where that is not permitted. All processes there are killed at the end."""
    machines = [Machine(index) for index in range(COUNT)]
    if shutil.which("ip") is None:
        pytest.skip("`ip` is not installed: no network namespaces")
    try:
        for machine in machines:
            _run("netns", "add", machine.name)
        first, second = machines
        _run("link", "add", first.interface, "type", "veth", "peer", "name", second.interface)
        for machine in machines:
            _run("link", "set", machine.interface, "netns", machine.name)
            _run("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            for interface in (machine.interface, "lo"):
                _run("-n", machine.name, "link", "set", interface, "up")
        yield machines
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.strip()}")
    finally:
        for machine in machines:
            with suppress(subprocess.CalledProcessError):
                machine.power_off()
                _run("netns", "del", machine.name)
