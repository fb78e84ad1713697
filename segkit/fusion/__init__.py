"""Instances + semantics -> PanopticSegmentation; one file per method.

A method is a `FusionMethod`: a frozen dataclass of its options, called with HeadOutputs; it needs its file and one line
here.
"""

from __future__ import annotations

from typing import Any

from segkit.fusion.fates import REASONS, Fate
from segkit.fusion.heuristic import HeuristicFusion
from segkit.fusion.method import FusionMethod
from segkit.fusion.options import checked_options
from segkit.structures import ConfigError

FUSION_METHODS: dict[str, type[FusionMethod]] = {"heuristic": HeuristicFusion}


def build_fusion(name: str, **options: Any) -> FusionMethod:
    """The fusion method `name` with its options; ConfigError for an unknown method or option, or a wrong value."""
    if name not in FUSION_METHODS:
        raise ConfigError(f"unknown fusion method {name!r}", remedy=f"choose one of {sorted(FUSION_METHODS)}")
    method = FUSION_METHODS[name]
    return method(**checked_options(name, method, options))


__all__ = ["FUSION_METHODS", "REASONS", "Fate", "FusionMethod", "HeuristicFusion", "build_fusion"]
