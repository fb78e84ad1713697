"""A dict some of whose values are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, ValuesView
from typing import Any


class Lazy:
    """A value that is made once, by calling `make`."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class LazyDict(dict[str, Any]):
    """A dict for which `Lazy` values are as good as made: every way of reading them makes them, and keeps them.

    Pickled, copied or unpacked (`{**d}`, `dict(d)`) it is a plain dict with all values made.
    """

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if isinstance(value, Lazy):
            value = value.make()
            self[key] = value
        return value

    def __iter__(self) -> Iterator[str]:  # its being there keeps dict(d) and {**d} from copying what is not made yet
        return super().__iter__()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return ItemsView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return ValuesView(self)

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 (this is that method)

    def pop(self, key: str, *default: Any) -> Any:
        self.get(key)  # made, if it is there
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self.get(key)
        return super().setdefault(key, default)

    def popitem(self) -> tuple[str, Any]:
        self.get(next(reversed(self), ""))
        return super().popitem()

    def __eq__(self, other: object) -> bool:
        return self.copy() == other

    def __ne__(self, other: object) -> bool:  # dict has one of its own, which does not ask __eq__
        return self.copy() != other

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)

    __hash__ = None
