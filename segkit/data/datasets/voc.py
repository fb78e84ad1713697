"""Pascal VOC 2012's segmentation sets: panoptic, instances, semantic.

Below root/VOC2012 (or root/VOCdevkit/VOC2012, as it unpacks): JPEGImages, SegmentationClass, SegmentationObject,
ImageSets/Segmentation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import TASK_METRICS, Dataset
from segkit.data.loaders.readers import load_reader_dataset

SPLITS = ("train", "val", "trainval")
FOLDERS = ("VOC2012", "VOCdevkit/VOC2012")


def register(root: Path) -> None:
    """Register segkit_voc_2012_{panoptic,instance_seg,sem_seg}_{train,val,trainval}.

    The only stuff is the background; in sem_seg, which does not need SegmentationObject, all classes are stuff.

    Args:
        root: folder that holds VOC2012/ or VOCdevkit/VOC2012/.
    """
    for task, metrics in TASK_METRICS.items():
        for split in SPLITS:
            name = f"segkit_voc_2012_{task}_{split}"
            register_dataset(name, partial(_load, name, root, split, metrics))


def _load(name: str, root: Path, split: str, metrics: tuple[str, ...]) -> Dataset:
    folders = [root / folder for folder in FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    options: dict[str, str | None] = {"root": str(folder), "split": split}
    if metrics == TASK_METRICS["sem_seg"]:
        options["objects"] = None
    return load_reader_dataset(name, "voc", options, metrics)
