"""Every way of reading a LazyDict gives the computed value, computed once."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from segkit.modeling.lazy_dict import LazyDict, LazyValue


def build() -> tuple[LazyDict, list[int]]:
    """A LazyDict, and a list that grows with each computation of its "b"."""
    calls: list[int] = []
    return LazyDict(a=1, b=LazyValue(lambda: calls.append(1) or 2)), calls


@pytest.mark.parametrize(
    "read",
    [
        lambda d: d["b"],
        lambda d: d.get("b"),
        lambda d: dict(d)["b"],
        lambda d: {**d}["b"],
        lambda d: dict(d.items())["b"],
        lambda d: [*d.values()][1],
        lambda d: copy.copy(d)["b"],
        lambda d: copy.deepcopy(d)["b"],
        lambda d: pickle.loads(pickle.dumps(d))["b"],
        lambda d: d.pop("b"),
        lambda d: d.pop("b", None),
        lambda d: dict([d.popitem(), d.popitem()])["b"],
        lambda d: d.setdefault("b", 3),
        lambda d: ({} | dict(d))["b"],
        lambda d: (lambda **given: given)(**d)["b"],
        lambda d: eval(repr(d))["b"],
    ],
)
def test_every_way_of_reading_gives_the_value(read: Any) -> None:
    lazy, calls = build()
    assert read(lazy) == 2
    assert len(calls) == 1


def test_nothing_is_computed_early_and_keys_are_listed() -> None:
    lazy, calls = build()
    assert "b" in lazy
    assert "c" not in lazy
    assert list(lazy) == ["a", "b"]
    assert len(lazy) == 2
    assert lazy["a"] == 1
    assert calls == []
    assert lazy == {"a": 1, "b": 2}
    assert lazy["b"] == 2
    assert calls == [1]
    assert not lazy != {"a": 1, "b": 2}  # noqa: SIM202 (the other operator)
    assert lazy != {"a": 1}


def test_a_missing_key_is_a_key_error() -> None:
    lazy, calls = build()
    assert lazy.pop("c", 3) == lazy.get("c", 3) == 3
    assert lazy.get("c") is None
    for read in (lambda: lazy["c"], lambda: lazy.pop("c")):
        with pytest.raises(KeyError, match="c"):
            read()
    assert lazy.setdefault("c", 3) == lazy["c"] == 3
    assert calls == []
    del lazy["b"]
    assert list(lazy) == ["a", "c"]
    assert calls == []
    with pytest.raises(KeyError):
        LazyDict().popitem()


@pytest.mark.parametrize("read", [lambda d: d.get("b"), lambda d: d.pop("b", 1), lambda d: d.setdefault("b", 1)])
def test_a_key_error_of_the_computation_is_not_hidden(read: Any) -> None:
    lazy = LazyDict(b=LazyValue(lambda: {}["inside"]))
    with pytest.raises(RuntimeError, match=r"the value of 'b' cannot be computed: KeyError.*inside"):
        read(lazy)
    assert "b" in lazy
