"""Compiled loops where numba is installed (the extra `fast`); every user of it has a numpy way of equal output."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

try:
    import numba
    from numba.extending import intrinsic, overload

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


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32 arrays or numbers, rounded once, as a processor's fused multiply-add gives it.

    Usable in compiled functions too. The product of two float32 is exact in float64; their sum with c is rounded to odd
    there (Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded sums"), so that the rounding to float32
    is as if it were the only one.
    """
    product, term = np.multiply(a, b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    total = np.asarray(product + term)
    rest = (product - (total - (total - product))) + (term - (total - product))
    bits = total.view(np.int64)
    away = np.where((rest > 0) == (total > 0), 1, -1)
    odd = np.where((rest != 0) & (bits & 1 == 0), bits + away, bits)
    return odd.view(np.float64).astype(np.float32)


if COMPILED:

    @intrinsic
    def _fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.fma(*values)

        return numba.float32(numba.float32, numba.float32, numba.float32), generate

    @overload(multiply_add)
    def _multiply_add(a: Any, b: Any, c: Any) -> Any:
        def implementation(a: Any, b: Any, c: Any) -> Any:
            return _fused(a, b, c)  # type: ignore[call-arg]  # numba gives the first argument

        return implementation
