"""The class counts of the heads: taken from the dataset, and compared with it if the config gives them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from segkit.config import FROM_DATASET
from segkit.data.dataset import Dataset
from segkit.structures import CategorySet
from segkit.structures.architecture_spec import ALL_COUNTS, get_architecture_spec, get_class_counts
from segkit.utils.errors import ConfigError


def get_thing_channels(cfg: Any, dataset: Dataset) -> str:
    """Resolve MODEL.SEM_SEG_HEAD.THING_CHANNELS.

    Args:
        cfg: a config with segkit's keys.
        dataset: decides if the config says "auto".

    Returns:
        "one" or "per_class", see `CategorySet.build_semantic_space`.

    Raises:
        ConfigError: the architecture does not work with the config's value.
    """
    return choose_thing_channels(cfg, dataset.default_thing_channels)


def choose_thing_channels(cfg: Any, default: str) -> str:
    """Resolve MODEL.SEM_SEG_HEAD.THING_CHANNELS without a dataset.

    Args:
        cfg: a config with segkit's keys.
        default: "one" or "per_class", if neither the config nor the architecture decides.

    Returns:
        "one" or "per_class", see `CategorySet.build_semantic_space`.

    Raises:
        ConfigError: the architecture does not work with the config's value.
    """
    channels: str = cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS
    spec = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE)
    if spec.thing_channels == "auto":
        return default if channels == "auto" else channels
    if channels not in ("auto", spec.thing_channels):
        problem = f"{spec.name} needs {spec.thing_channels}, got {channels}"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD.THING_CHANNELS", remedy="leave it at auto")
    return spec.thing_channels


def resolve_class_counts(cfg: Any, dataset: Dataset) -> None:
    """Set the class counts of the architecture's heads, and the meaning of the semantic channels, in place.

    Args:
        cfg: a config with segkit's keys; the spec of MODEL.META_ARCHITECTURE names its counts.
        dataset: gives the categories.

    Raises:
        ConfigError: a count of the config contradicts the dataset; the message has both numbers and the reason.
    """
    resolve_for_categories(cfg, dataset.categories, get_thing_channels(cfg, dataset), dataset.name)


def resolve_for_categories(cfg: Any, categories: CategorySet, channels: str, name: str) -> None:
    """Do the same as `resolve_class_counts` for categories that are known without their dataset.

    Args:
        cfg: a config with segkit's keys.
        categories: the categories that the model predicts.
        channels: "one" or "per_class", see `CategorySet.build_semantic_space`.
        name: where the categories come from, for messages.

    Raises:
        ConfigError: a count of the config contradicts the categories.
    """
    space = categories.build_semantic_space(channels)
    per_class = channels == "per_class"
    cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS = channels
    cfg.MODEL.PANOPTIC.STUFF_IDS = space.stuff_ids.tolist() if per_class else []
    cfg.MODEL.PANOPTIC.THING_IDS = space.thing_ids.tolist() if per_class else []
    cfg.MODEL.PANOPTIC.THING_NAMES = [category.name for category in categories.things]
    why_channels = f'{len(categories.stuff)} stuff classes plus one "thing" channel'
    if per_class:
        why_channels = "one channel per class, as MODEL.SEM_SEG_HEAD.THING_CHANNELS says"
    counts = {
        "things": (len(categories.things), "its thing classes"),
        "semantic_channels": (len(space.names), why_channels),
    }
    used = get_class_counts(cfg)
    for key, kind in {**ALL_COUNTS, **used}.items():
        expected, reason = counts[kind]
        parent, _, leaf = key.rpartition(".")
        node = attrgetter(parent)(cfg)
        if node[leaf] == FROM_DATASET:
            node[leaf] = expected
        elif key in used and node[leaf] != expected:
            raise ConfigError(
                f"{key} is {node[leaf]}, but the dataset {name} needs {expected} ({reason})",
                remedy=f"set it to {expected}, or leave it out of the config file, to take it from the dataset",
            )
