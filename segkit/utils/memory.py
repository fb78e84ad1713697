"""The memory of this process (Linux)."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

RESET_PEAK = "5"  # of /proc/self/clear_refs: the peak becomes what is in use


def reset_peak() -> None:
    """Let the peak begin at what the process uses now; elsewhere than on Linux nothing happens."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")


def read_peak_mib() -> float:
    """Read the peak of the resident memory since `reset_peak`.

    Returns:
        MiB; NaN elsewhere than on Linux.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024  # given in KiB
    return float("nan")


def release_free_memory() -> None:
    """Give freed memory back to the system (glibc), which keeps what lies between pieces in use; elsewhere nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
