"""The classes of the datasets that published weights were trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from segkit.data.catalog import get_categories
from segkit.data.datasets.coco import CATEGORIES as COCO
from segkit.structures import Category, CategorySet
from segkit.structures.categories import default_color
from segkit.utils.errors import ConfigError
from segkit.utils.files import load_json

COCO_THINGS = "coco"
COCO_CLASSES = (COCO_THINGS, "coco_panoptic", "coco_semantic")
VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES_THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
CITYSCAPES_STUFF = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky"),
)


def _number(names: Iterable[str], *, things: bool = True, first: int = 1) -> CategorySet:
    return CategorySet(Category(i, name, things, default_color(i)) for i, name in enumerate(names, first))


def _mix(stuff: Sequence[str], things: Sequence[str]) -> CategorySet:
    """Stuff first: the order of Cityscapes' train ids."""
    others = _number(things, first=len(stuff) + 1)
    return CategorySet([*_number(stuff, things=False).categories, *others.categories])


def _list_lvis(version: str) -> CategorySet:
    from detectron2.data.datasets.lvis import get_lvis_instances_meta

    return _number(get_lvis_instances_meta(f"lvis_{version}")["thing_classes"])


# name -> (thing classes, semantic channels that the weights have: 0 for none; the categories)
KNOWN_CLASSES: dict[str, tuple[int, int, Callable[[], CategorySet]]] = {
    COCO_THINGS: (80, 0, lambda: CategorySet(COCO.things)),
    "coco_panoptic": (80, 54, lambda: COCO),
    "coco_semantic": (0, 54, lambda: COCO),
    "lvis_v1": (1203, 0, lambda: _list_lvis("v1")),
    "lvis_v0.5": (1230, 0, lambda: _list_lvis("v0.5")),
    "cityscapes_things": (8, 0, lambda: _number(CITYSCAPES_THINGS)),
    "cityscapes_panoptic": (0, 19, lambda: _mix(CITYSCAPES_STUFF, CITYSCAPES_THINGS)),
    "coco_all": (0, 133, lambda: COCO),
    "cityscapes_semantic": (0, 19, lambda: _number([*CITYSCAPES_STUFF, *CITYSCAPES_THINGS], things=False)),
    "voc": (20, 0, lambda: _number(VOC_NAMES)),
    "voc_semantic": (0, 21, lambda: _number(["background", *VOC_NAMES], things=False, first=0)),
}


def find_by_count(things: int, channels: int, names: Sequence[str]) -> str:
    """Find classes by their number.

    Args:
        things: thing classes of the weights.
        channels: semantic channels of the weights; 0 for none.
        names: the keys of `KNOWN_CLASSES` that are possible.

    Returns:
        The key; "" if none has these counts.
    """
    return next((name for name in names if KNOWN_CLASSES[name][:2] == (things, channels)), "")


def load_classes(name: str) -> CategorySet:
    """Get classes by name.

    Args:
        name: key of `KNOWN_CLASSES`, name of a dataset, or JSON file with COCO's `categories`.

    Returns:
        The categories.

    Raises:
        ConfigError: the name is unknown, or the file has no `categories`.
        DatasetError: the file cannot be read.
    """
    if name in KNOWN_CLASSES:
        return KNOWN_CLASSES[name][2]()
    if not name.endswith(".json"):
        return get_categories(name)
    content: Any = load_json(Path(name))
    categories = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(categories, list):
        problem = "expected `categories`, a list of objects with id, name and isthing, as in COCO's files"
        raise ConfigError(problem, where=name)
    return CategorySet.from_coco(categories, name)
