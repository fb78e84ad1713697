"""Instances + semantics -> PanopticSegmentation; one file per method.

A method is a frozen dataclass of its options, called with (InstanceMasks, stuff_ids (H, W)); it needs its file and
one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.heuristic import HeuristicFusion
from segkit.structures import ConfigError, InstanceMasks, PanopticSegmentation

Fusion = Callable[[InstanceMasks, NDArray[np.integer]], PanopticSegmentation]

FUSION_METHODS: dict[str, Any] = {"heuristic": HeuristicFusion}


def build_fusion(name: str, **options: Any) -> Fusion:
    """The fusion method `name` with its options; ConfigError for an unknown method or option."""
    if name not in FUSION_METHODS:
        raise ConfigError(f"unknown fusion method {name!r}", remedy=f"choose one of {sorted(FUSION_METHODS)}")
    method = FUSION_METHODS[name]
    known = {field.name for field in fields(method)}
    if unknown := sorted(set(options) - known):
        raise ConfigError(f"fusion method {name!r} has no option {unknown}", remedy=f"its options are {sorted(known)}")
    fusion: Fusion = method(**options)
    return fusion


__all__ = ["FUSION_METHODS", "Fusion", "HeuristicFusion", "build_fusion"]
