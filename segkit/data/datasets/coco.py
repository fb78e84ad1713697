"""COCO 2017: panoptic and instances; Detectron2's names with `segkit_` in front.

Below root/coco: annotations/panoptic_{split}2017.json, panoptic_{split}2017/ (or in annotations/), {split}2017/; and
annotations/instances_{split}2017.json, which the panoptic names use for boxes and masks if it exists.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from segkit.data.catalog import register_files
from segkit.structures import Category, CategorySet

CATEGORIES = CategorySet(
    Category(c["id"], c["name"], bool(c["isthing"]), (c["color"][0], c["color"][1], c["color"][2]))
    for c in COCO_CATEGORIES
)


def register(root: str | Path) -> None:
    """Register segkit_coco_2017_{train,val}_panoptic and segkit_coco_2017_{train,val} (instances).

    Args:
        root: folder that holds coco/.
    """
    root = Path(root)
    coco = root / "coco"
    for split in ("train", "val"):
        name, options = f"segkit_coco_2017_{split}", partial(_find_panoptic_options, coco, split)
        register_files(f"{name}_panoptic", "coco-panoptic", options, None, CATEGORIES, checks_categories=True)
        paths = {"json": f"{coco}/annotations/instances_{split}2017.json", "images": f"{coco}/{split}2017"}
        register_files(name, "coco-instances", paths, None, CategorySet(CATEGORIES.things))


def _find_panoptic_options(root: Path, split: str) -> dict[str, Path]:
    annotations, folder = root / "annotations", f"panoptic_{split}2017"
    pngs = annotations / folder
    if (root / folder).is_dir() or not pngs.is_dir():
        pngs = root / folder
    options = {"json": annotations / f"{folder}.json", "masks": pngs, "images": root / f"{split}2017"}
    instances_json = annotations / f"instances_{split}2017.json"
    if instances_json.is_file():
        options["instances_json"] = instances_json
    else:
        logging.getLogger(__name__).warning(
            "%s does not exist: boxes and masks are derived from the panoptic PNGs, where nothing overlaps; AP is then "
            "not comparable with published numbers",
            instances_json,
        )
    return options
