"""A request to end the process is an exception, wherever it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

IGNORING = """
import os, signal, sys, time
from segkit.utils.signals import raising_terminated

class Ignoring:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # Python calls the handler of the signal here, and ignores what it raises

def fork():
    os.register_at_fork(after_in_parent=Ignoring().__del__)
    if os.fork() == 0:
        os._exit(0)

with raising_terminated():
    fork() if sys.argv[1] == "fork" else Ignoring()
    print("ignored", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("where", ["fork", "__del__"])
def test_a_request_that_python_ignores_ends_the_process_a_moment_later(where: str) -> None:
    ran = subprocess.run([sys.executable, "-c", IGNORING, where], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + signal.SIGTERM, "ignored\n", "")
