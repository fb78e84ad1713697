"""Pascal VOC 2012's segmentation sets: panoptic, instances, semantic.

Below root/VOC2012 (or root/VOCdevkit/VOC2012, as it unpacks): JPEGImages, SegmentationClass, SegmentationObject,
ImageSets/Segmentation.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from segkit.data.catalog import register_files
from segkit.data.dataset import TASK_METRICS

FOLDERS = ("VOC2012", "VOCdevkit/VOC2012")


def register(root: str | Path) -> None:
    """Register segkit_voc_2012_{panoptic,instance_seg,sem_seg}_{train,val,trainval}.

    The only stuff is the background; in sem_seg, which does not need SegmentationObject, all classes are stuff.

    Args:
        root: folder that holds VOC2012/ or VOCdevkit/VOC2012/.
    """
    root = Path(root)
    for task, split in product(TASK_METRICS, ("train", "val", "trainval")):
        options = partial(_find_options, root, task, split)
        register_files(f"segkit_voc_2012_{task}_{split}", "voc", options, TASK_METRICS[task])


def _find_options(root: Path, task: str, split: str) -> dict[str, Any]:
    folders = [root / folder for folder in FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    options = {"root": str(folder), "split": split}
    return options if task != "sem_seg" else {**options, "objects": None}
