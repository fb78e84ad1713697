"""Every way of reading a LazyDict gives the made value, made once."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from segkit.modeling.lazy_dict import Lazy, LazyDict


def made() -> tuple[LazyDict, list[int]]:
    calls: list[int] = []
    return LazyDict(a=1, b=Lazy(lambda: calls.append(1) or 2)), calls


@pytest.mark.parametrize(
    "read",
    [
        lambda d: d["b"],
        lambda d: d.get("b"),
        lambda d: dict(d)["b"],
        lambda d: {**d}["b"],
        lambda d: dict(d.items())["b"],
        lambda d: [*d.values()][1],
        lambda d: d.copy()["b"],
        lambda d: copy.copy(d)["b"],
        lambda d: copy.deepcopy(d)["b"],
        lambda d: pickle.loads(pickle.dumps(d))["b"],
        lambda d: d.pop("b"),
        lambda d: d.pop("b", None),
        lambda d: d.popitem()[1],
        lambda d: d.setdefault("b", 3),
        lambda d: (d | {})["b"],
        lambda d: ({} | d)["b"],
        lambda d: (lambda **given: given)(**d)["b"],
        lambda d: json.loads(json.dumps(d))["b"],
    ],
)
def test_every_way_of_reading_gives_the_value(read: Any) -> None:
    lazy, calls = made()
    assert read(lazy) == 2
    assert len(calls) == 1


def test_nothing_is_made_before_and_keys_are_known() -> None:
    lazy, calls = made()
    assert "b" in lazy
    assert list(lazy) == ["a", "b"]
    assert len(lazy) == 2
    assert lazy["a"] == 1
    assert calls == []
    assert lazy == {"a": 1, "b": 2}
    assert lazy["b"] == 2
    assert calls == [1]
    assert isinstance(lazy, dict)
    assert not lazy != {"a": 1, "b": 2}  # noqa: SIM202 (dict has a way of its own for this)


def test_a_key_that_is_not_there_is_that_of_any_dict() -> None:
    lazy, calls = made()
    assert lazy.pop("c", 3) == lazy.get("c", 3) == 3
    assert lazy.get("c") is None
    for read in (lambda: lazy["c"], lambda: lazy.pop("c")):
        with pytest.raises(KeyError, match="c"):
            read()
    assert lazy.setdefault("c", 3) == lazy["c"] == 3
    assert calls == []
    with pytest.raises(KeyError, match="empty"):
        LazyDict().popitem()


@pytest.mark.parametrize("read", [lambda d: d.get("b"), lambda d: d.pop("b", 1), lambda d: d.setdefault("b", 1)])
def test_an_error_in_making_is_not_taken_for_a_missing_key(read: Any) -> None:
    lazy = LazyDict(b=Lazy(lambda: {}["inside"]))
    with pytest.raises(KeyError, match="inside"):
        read(lazy)
    assert "b" in lazy
