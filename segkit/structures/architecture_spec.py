"""What an architecture needs from its data and gives to its users: one record for each, in one registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from segkit.utils.errors import ConfigError

Target = Literal["instances", "semantic", "panoptic"]
Count = Literal["things", "semantic_channels"]
Output = Literal["instances", "sem_seg", "panoptic_seg", "head_outputs"]


@dataclass(frozen=True)
class ArchitectureSpec:
    """The facts about a meta-architecture that mapper, class counts, checks and evaluators read.

    Attributes:
        name: the value of MODEL.META_ARCHITECTURE.
        targets: what a training sample must hold: "instances" (boxes and masks), "semantic" (a map of semantic
            channels), "panoptic" (all segments of the panoptic map).
        outputs: the keys of the model's output dict.
        class_counts: config key -> what it counts: "things" (thing classes) or "semantic_channels" (channels of
            CategorySet.build_semantic_space).
        postprocessing: "fusion" for a method of segkit.fusion, chosen by MODEL.PANOPTIC.FUSION; "own" for a fixed
            step inside the model; "none" if the heads' outputs are the result.
    """

    name: str
    targets: tuple[Target, ...]
    outputs: tuple[Output, ...]
    class_counts: Mapping[str, Count] = field(default_factory=dict)
    postprocessing: Literal["fusion", "own", "none"] = "none"


_specs: dict[str, ArchitectureSpec] = {}


def register_architecture(spec: ArchitectureSpec) -> None:
    """Add a spec to the registry; a spec of the same name is replaced.

    Args:
        spec: the facts about one architecture.
    """
    _specs[spec.name] = spec


def get_architecture_spec(name: str) -> ArchitectureSpec:
    """Look up an architecture.

    Args:
        name: the value of MODEL.META_ARCHITECTURE.

    Returns:
        The registered spec.

    Raises:
        ConfigError: no spec has this name.
    """
    if name not in _specs:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {name!r} is unknown",
            remedy=f"choose one of {', '.join(sorted(_specs))}, or register an ArchitectureSpec for yours",
        )
    return _specs[name]
