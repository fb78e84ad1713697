"""Compiled loops where numba is installed (the extra `fast`); every user of it has a numpy way of equal output."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

try:
    import numba

    INSTALLED = True
except ImportError:
    INSTALLED = False

COMPILED = INSTALLED and os.environ.get("SEGKIT_COMPILED", "1") != "0"

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code that releases Python's lock, compiled at its first call and kept on disk.

    Where `COMPILED` is False (no numba, or SEGKIT_COMPILED=0 in the environment) it is returned as it is: correct, and
    so slow that the caller takes its numpy way instead.
    """
    if not COMPILED:
        return function
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
