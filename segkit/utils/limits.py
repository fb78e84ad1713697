"""Limits against files that claim or unpack to more than a machine holds; an environment variable raises each."""

from __future__ import annotations

import os

from segkit.utils.errors import ConfigError, DatasetError

MAX_UNPACKED = "SEGKIT_MAX_UNPACKED_BYTES"
DEFAULT_UNPACKED = 2**28
# Files of this ratio or less are not limited: they are large themselves.
USUAL_RATIO = 20


def read_limit(name: str, default: int) -> int:
    """Read a limit from the environment.

    Args:
        name: the variable, `SEGKIT_MAX_...`.
        default: the limit if the variable is not set or empty.

    Returns:
        The limit, at least 1.

    Raises:
        ConfigError: the variable is no whole number from 1.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) < 1:
        problem = f"expected a whole number from 1, got {text[:40]!r}"
        raise ConfigError(problem, where=name, remedy="unset or correct it")
    return int(text)


def check_unpacked_size(unpacked: int, packed: int, where: object = "") -> None:
    """Check how much a compressed file holds, before it is unpacked.

    Args:
        unpacked: bytes that it claims to hold.
        packed: bytes of the file.
        where: the file, for the message.

    Raises:
        DatasetError: it holds more than `SEGKIT_MAX_UNPACKED_BYTES`, and more than `USUAL_RATIO` times its own size.
    """
    limit = read_limit(MAX_UNPACKED, DEFAULT_UNPACKED)
    if unpacked > max(limit, USUAL_RATIO * packed):
        problem = f"expected at most {limit} bytes, unpacked, in a file of {packed}, got {unpacked}"
        raise DatasetError(problem, where=where, remedy=f"if you trust it, set {MAX_UNPACKED}={unpacked}")
