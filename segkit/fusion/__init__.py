"""Fusion: instances and semantics -> PanopticSegmentation; one file per method.

A method is a `FusionMethod` (method.py): a frozen dataclass of its options that is called with HeadOutputs. It needs
its file and one line here. Methods share: candidates.py (which instances take part), pixel_argmax.py (the best
competitor of each pixel), segments.py (from owners to segments), explanations.py (why a segment was dropped),
options.py and class_keys.py (checks of options). Before a fusion, paste.py pastes masks on their boxes, and
semantic_argmax.py finds the best semantic channel of each pixel.
"""

from __future__ import annotations

from typing import Any

from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.explanations import REASONS, DroppedSegment
from segkit.fusion.heuristic import HeuristicFusion
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.method import CENTERS, LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.priority import PriorityFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.utils.errors import ConfigError
from segkit.utils.options import convert_options
from segkit.utils.text import suggest

FUSION_METHODS: dict[str, type[FusionMethod]] = {
    "heuristic": HeuristicFusion,
    "priority": PriorityFusion,
    "upsnet": UPSNetFusion,
    "efficientps": EfficientPSFusion,
    "mask_argmax": MaskArgmaxFusion,
    "majority_vote": MajorityVoteFusion,
}


def build_fusion(name: str, **options: Any) -> FusionMethod:
    """Build a fusion method.

    Args:
        name: Key of FUSION_METHODS.
        **options: Options of the method, by name.

    Returns:
        The method.

    Raises:
        ConfigError: The method or an option is unknown, or a value is invalid.
    """
    if name not in FUSION_METHODS:
        remedy = suggest(name, FUSION_METHODS, f"choose one of {sorted(FUSION_METHODS)}")
        raise ConfigError(f"unknown fusion method {name!r}", remedy=remedy)
    method = FUSION_METHODS[name]
    return method(**convert_options(f"fusion method {name!r}", method, options))


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
