"""The class counts of the heads: taken from the dataset, and compared with it where the config gives them."""

from __future__ import annotations

from typing import Any

from segkit.config import FROM_DATASET
from segkit.data.dataset import Dataset
from segkit.data.mapper import get_thing_channels
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError

SEMANTIC_ARCHITECTURES = ("PanopticRCNN", "PanopticFPN", "SemanticSegmentor", "PanopticDeepLab")


def resolve_class_counts(cfg: Any, dataset: Dataset) -> None:
    """Set NUM_CLASSES of the ROI and semantic heads (and RetinaNet's) and the channels' meaning in `cfg`, in place.

    Raises ConfigError with both numbers and the reason where the config contradicts the dataset.
    """
    resolve_for_categories(cfg, dataset.categories, get_thing_channels(cfg, dataset), dataset.name)


def resolve_for_categories(cfg: Any, categories: CategorySet, channels: str, name: str) -> None:
    """As `resolve_class_counts`, for categories that are known without their dataset."""
    things = len(categories.things)
    space = categories.build_semantic_space(channels)
    semantic = len(space.names)
    why_semantic = (
        f'{len(categories.stuff)} stuff classes plus one "thing" channel'
        if channels == "one"
        else "one channel per class, as MODEL.SEM_SEG_HEAD.THING_CHANNELS says"
    )
    cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS = channels
    cfg.MODEL.PANOPTIC.STUFF_IDS = space.stuff_ids.tolist() if channels == "per_class" else []
    cfg.MODEL.PANOPTIC.THING_IDS = space.thing_ids.tolist() if channels == "per_class" else []
    cfg.MODEL.PANOPTIC.THING_NAMES = [category.name for category in categories.things]
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture != "SemanticSegmentor":
        _resolve(cfg.MODEL.ROI_HEADS, "MODEL.ROI_HEADS", things, "its thing classes", name)
    if architecture == "RetinaNet":
        cfg.MODEL.RETINANET.NUM_CLASSES = things
    if architecture in SEMANTIC_ARCHITECTURES:
        _resolve(cfg.MODEL.SEM_SEG_HEAD, "MODEL.SEM_SEG_HEAD", semantic, why_semantic, name)
    for head, count in ((cfg.MODEL.ROI_HEADS, things), (cfg.MODEL.SEM_SEG_HEAD, semantic)):
        if head.NUM_CLASSES == FROM_DATASET:
            head.NUM_CLASSES = count


def _resolve(node: Any, key: str, expected: int, reason: str, name: str) -> None:
    if node.NUM_CLASSES not in (FROM_DATASET, expected):
        raise ConfigError(
            f"{key}.NUM_CLASSES is {node.NUM_CLASSES}, but the dataset {name} needs {expected} ({reason})",
            remedy=f"remove the key: {key}.NUM_CLASSES is then taken from the dataset",
        )
    node.NUM_CLASSES = expected
