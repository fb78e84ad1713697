"""A mapping whose values may be computed when they are first read."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any


class LazyValue:
    """A value of a LazyDict that is computed at most once.

    Args:
        compute: Function without arguments that returns the value.
    """

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


class LazyDict(UserDict[str, Any]):
    """A mapping that computes its `LazyValue`s when they are read, and keeps the results.

    Detectron2's evaluators and visualizers only read by key, so that they need no dict. `dict(d)`, `{**d}`, a copy and
    a pickle are plain dicts with all values computed.

    Args:
        **values: Values by key, some of them LazyValue.
    """

    def __getitem__(self, key: str) -> Any:
        value = self.data[key]
        if isinstance(value, LazyValue):
            try:
                value = value.compute()
            except KeyError as error:  # get() and pop() would take it for a missing key
                raise RuntimeError(f"the value of {key!r} cannot be computed: {error!r}") from error
            self.data[key] = value
        return value

    def __repr__(self) -> str:
        return repr(dict(self))

    def __copy__(self) -> Any:
        return dict(self)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)
