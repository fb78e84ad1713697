"""Cityscapes' fine annotations: panoptic, instances, semantic; Detectron2's names with `segkit_` in front.

Below root/cityscapes: leftImg8bit/{split}/{city}/*_leftImg8bit.png, gtFine/{split}/{city}/*_gtFine_instanceIds.png, as
they are downloaded. The labels of the split `test`, which are dummies, are not read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset, register_files
from segkit.data.dataset import TASK_METRICS, Dataset
from segkit.data.loaders.images import build_image_dataset
from segkit.formats.cityscapes import CATEGORIES, list_images


def register(root: str | Path) -> None:
    """Register segkit_cityscapes_fine_{panoptic,instance_seg,sem_seg}_{train,val,test}; test has no ground truth.

    Args:
        root: folder that holds cityscapes/.
    """
    root = Path(root)
    for task, metrics in TASK_METRICS.items():
        metrics = metrics if task == "sem_seg" else (*metrics, "cityscapes_ap")
        for split in ("train", "val"):
            options = {"root": str(root / "cityscapes"), "split": split}
            register_files(f"segkit_cityscapes_fine_{task}_{split}", "cityscapes", options, metrics, CATEGORIES)
        name = f"segkit_cityscapes_fine_{task}_test"
        register_dataset(name, partial(_load_images, name, root / "cityscapes", "test"), CATEGORIES)


def _load_images(name: str, root: Path, split: str) -> Dataset:
    image_root, images = list_images(root, split)
    return build_image_dataset(name, image_root, images, CATEGORIES)
