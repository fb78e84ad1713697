"""What an architecture needs from its data and gives to its users: one record for each, in one registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from segkit.utils.errors import ConfigError

Target = Literal["instances", "semantic", "panoptic", "centers"]
Count = Literal["things", "semantic_channels"]
Output = Literal["instances", "sem_seg", "panoptic_seg", "head_outputs"]

ROI_HEADS: dict[str, Count] = {"MODEL.ROI_HEADS.NUM_CLASSES": "things"}
RETINANET: dict[str, Count] = {"MODEL.RETINANET.NUM_CLASSES": "things"}
SEMANTIC_HEAD: dict[str, Count] = {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": "semantic_channels"}
POINT_HEAD: dict[str, Count] = {"MODEL.POINT_HEAD.NUM_CLASSES": "things"}
QUERIES: dict[str, Count] = {"MODEL.QUERIES.NUM_CLASSES": "semantic_channels"}  # with thing_channels="per_class"
ALL_COUNTS: dict[str, Count] = {**ROI_HEADS, **RETINANET, **SEMANTIC_HEAD, **POINT_HEAD, **QUERIES}
PANOPTIC: tuple[Output, ...] = ("instances", "sem_seg", "panoptic_seg")


@dataclass(frozen=True)
class ArchitectureSpec:
    """The facts about a meta-architecture that mapper, class counts, checks and evaluators read.

    Attributes:
        name: the value of MODEL.META_ARCHITECTURE.
        targets: what a training sample must hold: "instances" (boxes and masks), "semantic" (a map of semantic
            channels), "panoptic" (all segments of the panoptic map), "centers" (heatmap and offsets of the centers of
            things, with weights).
        outputs: the keys of the model's output dict.
        class_counts: config key -> what it counts: "things" (thing classes) or "semantic_channels" (channels of
            CategorySet.build_semantic_space). A number in the config must agree with the dataset.
        postprocessing: "fusion" for a method of segkit.fusion, chosen by MODEL.PANOPTIC.FUSION; "own" for a fixed
            step inside the model; "none" if the heads' outputs are the result.
        needs_targets: False if the model also trains on datasets that lack some of the targets.
        fusion: the method that MODEL.PANOPTIC.FUSION.NAME "auto" stands for.
        thing_channels: the only value of MODEL.SEM_SEG_HEAD.THING_CHANNELS that the model works with; "auto": any.
        crops_after_resize: whether INPUT.CROP cuts the resized image, for heads that pool a crop of fixed size;
            otherwise INPUT.CROP.AFTER_RESIZE decides.
        training: "gradient": by steps of an optimizer. "grid": without parameters; the model sees labelled images
            (`observe`), then each of its `list_settings` is tried (`set_options`): segkit/engine/training/tuning.py.
    """

    name: str
    targets: tuple[Target, ...]
    outputs: tuple[Output, ...]
    class_counts: Mapping[str, Count] = field(default_factory=dict)
    postprocessing: Literal["fusion", "own", "none"] = "none"
    needs_targets: bool = True
    fusion: str = "heuristic"
    thing_channels: Literal["auto", "one", "per_class"] = "auto"
    crops_after_resize: bool = False
    training: Literal["gradient", "grid"] = "gradient"


@dataclass(frozen=True)
class HeadSpec:
    """What a head needs beside what its architecture needs. A head without a spec needs nothing.

    Attributes:
        name: the value of MODEL.ROI_MASK_HEAD.NAME or MODEL.SEM_SEG_HEAD.NAME.
        class_counts: as in ArchitectureSpec, for config keys of its own.
        needs_bitmasks: it trains on BitMasks alone, not on polygons.
    """

    name: str
    class_counts: Mapping[str, Count] = field(default_factory=dict)
    needs_bitmasks: bool = False


_specs: dict[str, ArchitectureSpec] = {}
_heads: dict[str, HeadSpec] = {}


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
        The registered spec. An architecture without a spec gets all targets that its dataset has but "centers", all
        outputs are evaluated if it gives them, and only MODEL.ROI_HEADS.NUM_CLASSES must agree with the dataset.
    """
    usual: tuple[Target, ...] = ("instances", "semantic", "panoptic")
    return _specs.get(name) or ArchitectureSpec(name, usual, get_args(Output), ROI_HEADS, needs_targets=False)


def register_head(spec: HeadSpec) -> None:
    """Add a head to the registry; a head of the same name is replaced.

    Args:
        spec: the facts about one head.
    """
    _heads[spec.name] = spec


def get_head_specs(cfg: Any) -> list[HeadSpec]:
    """Look up the heads of a config.

    Args:
        cfg: a config with MODEL.META_ARCHITECTURE; the heads count that its architecture has.

    Returns:
        The specs of its mask head and semantic head, if they are registered.
    """
    counts = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).class_counts
    names = [cfg.MODEL.ROI_MASK_HEAD.NAME] if {*ROI_HEADS} & {*counts} and cfg.MODEL.MASK_ON else []
    names += [cfg.MODEL.SEM_SEG_HEAD.NAME] if {*SEMANTIC_HEAD} & {*counts} else []
    return [_heads[name] for name in names if name in _heads]


def get_class_counts(cfg: Any) -> dict[str, Count]:
    """Collect the class counts of a config's architecture and of its heads.

    Args:
        cfg: a config with MODEL.META_ARCHITECTURE.

    Returns:
        Config key -> what it counts.

    Raises:
        ConfigError: two heads use one key for different counts.
    """
    counts = dict(get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).class_counts)
    for head in get_head_specs(cfg):
        for key, kind in head.class_counts.items():
            if counts.setdefault(key, kind) != kind:
                problem = f"{key} cannot be the number of {counts[key]} and of {kind}, as {head.name} needs it"
                raise ConfigError(problem, remedy="choose another mask head or another semantic head")
    return counts
