"""Instances + semantics -> PanopticSegmentation; one file per method.

A method is a `FusionMethod` (method.py): a frozen dataclass of its options, called with HeadOutputs; it needs its file
and one line here. What methods share: which instances take part (candidates.py), the contest for each pixel
(contest.py), from owners to segments (segments.py), why a segment is gone (fates.py), checks of options (options.py,
class_keys.py). What comes before: masks pasted on boxes (paste.py), the best channels (semantic_winners.py).
"""

from __future__ import annotations

from typing import Any

from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.explanations import REASONS, DroppedSegment
from segkit.fusion.heuristic import HeuristicFusion
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.method import CENTERS, LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.options import checked_options
from segkit.fusion.priority import PriorityFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.utils.errors import ConfigError

FUSION_METHODS: dict[str, type[FusionMethod]] = {
    "heuristic": HeuristicFusion,
    "priority": PriorityFusion,
    "upsnet": UPSNetFusion,
    "efficientps": EfficientPSFusion,
    "mask_argmax": MaskArgmaxFusion,
    "majority_vote": MajorityVoteFusion,
}


def build_fusion(name: str, **options: Any) -> FusionMethod:
    """The fusion method `name` with its options; ConfigError for an unknown method or option, or a wrong value."""
    if name not in FUSION_METHODS:
        raise ConfigError(f"unknown fusion method {name!r}", remedy=f"choose one of {sorted(FUSION_METHODS)}")
    method = FUSION_METHODS[name]
    return method(**checked_options(name, method, options))


__all__ = [
    "CENTERS",
    "FUSION_METHODS",
    "LOGITS",
    "MASK_PROBS",
    "REASONS",
    "DroppedSegment",
    "FusionMethod",
    "HeuristicFusion",
    "build_fusion",
]
