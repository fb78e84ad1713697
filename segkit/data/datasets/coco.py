"""COCO 2017: panoptic and instances; Detectron2's names with `segkit_` in front.

Below root/coco: annotations/panoptic_{split}2017.json, panoptic_{split}2017/ (or in annotations/), {split}2017/; and
annotations/instances_{split}2017.json, which the panoptic names use for boxes and masks where it is there.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from segkit.data.catalog import register_dataset
from segkit.data.dataset import Dataset
from segkit.data.loaders.coco_instances import load_coco_instances
from segkit.data.loaders.coco_panoptic import load_coco_panoptic
from segkit.structures import Category, CategorySet

CATEGORIES = CategorySet(
    Category(c["id"], c["name"], bool(c["isthing"]), (c["color"][0], c["color"][1], c["color"][2]))
    for c in COCO_CATEGORIES
)


def register(root: Path) -> None:
    """segkit_coco_2017_{train,val}_panoptic and segkit_coco_2017_{train,val} (instances)."""
    for split in ("train", "val"):
        name = f"segkit_coco_2017_{split}"
        load = partial(_load_panoptic, f"{name}_panoptic", root / "coco", split)
        register_dataset(f"{name}_panoptic", load, CATEGORIES)
        instances_json = root / "coco" / "annotations" / f"instances_{split}2017.json"
        images = root / "coco" / f"{split}2017"
        register_dataset(
            name, partial(load_coco_instances, name, instances_json, images), CategorySet(CATEGORIES.things)
        )


def _load_panoptic(name: str, root: Path, split: str) -> Dataset:
    annotations, folder = root / "annotations", f"panoptic_{split}2017"
    instances: Path | None = annotations / f"instances_{split}2017.json"
    if instances is not None and not instances.is_file():
        logging.getLogger(__name__).warning(
            "%s is not there: boxes and masks are derived from the panoptic PNGs, where nothing overlaps; AP is then "
            "not comparable with published numbers",
            instances,
        )
        instances = None
    pngs = root / folder if (root / folder).is_dir() else annotations / folder
    pngs = pngs if pngs.is_dir() else root / folder
    json = annotations / f"{folder}.json"
    return load_coco_panoptic(name, json, pngs, root / f"{split}2017", instances, categories=CATEGORIES)
