"""Functions compiled by numba, if it is installed (the extra `fast`). Callers have a numpy or torch fallback."""

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
    """Compile a function with numba at its first call. The machine code is kept on disk and releases Python's lock.

    If `COMPILED` is False (no numba, or SEGKIT_COMPILED=0 in the environment), the function is returned unchanged. It
    is then correct but slow, so that callers use their fallback.

    Args:
        function: Any function that numba can compile.

    Returns:
        The compiled function, or the function itself.
    """
    if not COMPILED:
        return function
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
