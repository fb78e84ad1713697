"""A mapping whose values may be computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any


class LazyValue:
    """A value of a LazyDict that is computed at most once.

    Args:
        compute: Function without arguments that returns the value.
    """

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


class LazyDict(MutableMapping[str, Any]):
    """A mapping that computes its `LazyValue`s when they are read, and keeps the results.

    Detectron2's evaluators and visualizers only read by key, so that they need no dict. `dict(d)`, `{**d}`, a copy and
    a pickle are plain dicts with all values computed.

    Args:
        **values: Values by key, some of them LazyValue.
    """

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if isinstance(value, LazyValue):
            try:
                value = value.compute()
            except KeyError as error:  # get() and pop() would take it for a missing key
                raise RuntimeError(f"the value of {key!r} cannot be computed: {error!r}") from error
            self._values[key] = value
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:
        return dict, (dict(self),)
