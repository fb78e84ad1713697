"""COCO 2017: panoptic and instances; Detectron2's names with `segkit_` in front.

Below root/coco: annotations/panoptic_{split}2017.json, panoptic_{split}2017/ (or in annotations/), {split}2017/; and
annotations/instances_{split}2017.json, which the panoptic names use for boxes and masks if it exists. Of the test sets,
which have no ground truth, annotations/image_info_{test,test-dev}2017.json and test2017/.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from segkit.data.catalog import register_dataset, register_files
from segkit.data.dataset import Dataset
from segkit.data.loaders.images import build_image_dataset
from segkit.formats.coco import build_images, read_images
from segkit.structures import Category, CategorySet
from segkit.utils.json_fields import load_object

CATEGORIES = CategorySet(
    Category(c["id"], c["name"], bool(c["isthing"]), (c["color"][0], c["color"][1], c["color"][2]))
    for c in COCO_CATEGORIES
)


def register(root: str | Path) -> None:
    """Register segkit_coco_2017_{train,val}_panoptic, and segkit_coco_2017_{train,val} with instances.

    Of segkit_coco_2017_{test,test-dev} only images are known.

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
    for split in ("test", "test-dev"):
        name = f"segkit_coco_2017_{split}"
        register_dataset(name, partial(_load_images, name, coco, split), CATEGORIES)


def _load_images(name: str, root: Path, split: str) -> Dataset:
    json_path, folder = root / "annotations" / f"image_info_{split}2017.json", root / "test2017"
    entries = read_images(load_object(json_path), json_path).values()
    return build_image_dataset(name, folder, build_images(entries, folder, with_extra=False), CATEGORIES)


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
