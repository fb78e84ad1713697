"""Options that only fusion methods have: thresholds by class, kinds of suppression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from segkit.fusion.options import check_nms, check_thresholds
from segkit.utils.errors import ConfigError


@dataclass(frozen=True)
class Method:
    limit_of: Mapping[int, float] = field(default_factory=dict)


@pytest.mark.parametrize("key", [-1, "3", 3.0, True, None])
def test_keys_of_thresholds_are_contiguous_ids(key: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Method: limit_of must have contiguous ids \(integers from 0\) as keys, got"
    ):
        check_thresholds(Method(limit_of={0: 0.5, key: 0.5}), "limit_of")


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "0.5", None, [0.5]])
def test_values_of_thresholds_are_numbers(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"Method: limit_of must have numbers as values, got .* for the class 7"):
        check_thresholds(Method(limit_of={0: 1, 7: value}), "limit_of")


@pytest.mark.parametrize("value", [None, [0.5], 0.5])
def test_thresholds_are_a_mapping(value: Any) -> None:
    with pytest.raises(ConfigError, match="Method: limit_of must be a mapping from contiguous ids to numbers, got "):
        check_thresholds(Method(limit_of=value), "limit_of")


def test_valid_thresholds_are_accepted() -> None:
    check_thresholds(Method(), "limit_of")
    check_thresholds(Method(limit_of={0: 0, 80: 0.5}), "limit_of")


def test_kinds_of_suppression() -> None:
    for kind in ("none", "box", "mask"):
        check_nms(kind)
    with pytest.raises(ConfigError, match=r"nms must be one of \['none', 'box', 'mask'\], got 'Box'"):
        check_nms("Box")
