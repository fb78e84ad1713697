"""Options of methods: unknown options, wrong types, values out of range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest

from segkit.utils.errors import ConfigError
from segkit.utils.options import check_fraction, check_numbers, convert_options


@dataclass(frozen=True)
class Method:
    share: float = 0.5
    count: int = 3
    name: str = "none"
    strict: bool = False
    limit_of: Mapping[int, float] = field(default_factory=dict)
    made: int = field(default=0, init=False)


def test_options_of_the_right_type_pass_and_integers_become_floats() -> None:
    options = {"share": 1, "count": 4, "name": "box", "strict": True, "limit_of": MappingProxyType({3: 0.5})}
    checked = convert_options("method 'toy'", Method, options)
    assert checked == {"share": 1.0, "count": 4, "name": "box", "strict": True, "limit_of": {3: 0.5}}
    assert type(checked["share"]) is float
    assert type(checked["limit_of"]) is dict
    assert convert_options("method 'toy'", Method, {}) == {}


def test_the_mapping_is_a_copy() -> None:
    limits = {3: 0.5}
    assert convert_options("method 'toy'", Method, {"limit_of": limits})["limit_of"] is not limits


@pytest.mark.parametrize("unknown", ["shares", "made", ""])
def test_unknown_options_are_rejected_and_valid_options_listed(unknown: str) -> None:
    with pytest.raises(ConfigError, match=rf"method 'toy' has no option \['{unknown}'\]") as caught:
        convert_options("method 'toy'", Method, {unknown: 1, "share": 0.5})
    assert "its options are ['count', 'limit_of', 'name', 'share', 'strict']" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("share", True, "float"),
        ("share", "0.5", "float"),
        ("share", None, "float"),
        ("count", 3.0, "int"),
        ("count", True, "int"),
        ("name", 3, "str"),
        ("name", ["none"], "str"),
        ("strict", 1, "bool"),
        ("limit_of", [0.5], "dict"),
        ("limit_of", 0.5, "dict"),
    ],
)
def test_another_type_is_rejected(option: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"method 'toy': option '{option}' must be of type {expected}, got "):
        convert_options("method 'toy'", Method, {option: value})


def test_non_numbers_are_rejected() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigError, match=f"method 'toy': option 'share' must be a finite number, got {value}"):
            convert_options("method 'toy'", Method, {"share": value})
    with pytest.raises(ConfigError, match="option 'share' must be of type float, got 1000"):
        convert_options("method 'toy'", Method, {"share": 10**400})


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, True, "0.5", None])
def test_a_fraction_is_from_0_to_1(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"Method: share must be a number in \[0, 1\], got "):
        check_fraction(Method(share=value), "share")
    check_fraction(Method(share=0), "share")
    check_fraction(Method(share=1), "share")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, False, "3", None])
def test_invalid_numbers_are_rejected(value: Any) -> None:
    with pytest.raises(ConfigError, match="Method: share must be a number, got "):
        check_numbers(Method(share=value), "share")
    check_numbers(Method(share=-1e300), "count", "share")


def test_a_number_below_the_least_is_rejected() -> None:
    for value in (-1, -1e-9, math.nan):
        with pytest.raises(ConfigError, match="Method: share must be a number from 0, got "):
            check_numbers(Method(share=value), "count", "share", least=0)
    check_numbers(Method(share=0), "share", least=0)
