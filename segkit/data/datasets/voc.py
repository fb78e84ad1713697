"""Pascal VOC 2012's segmentation sets: panoptic, instances, semantic.

Below root/VOC2012 (or root/VOCdevkit/VOC2012, as it unpacks): JPEGImages, SegmentationClass, SegmentationObject,
ImageSets/Segmentation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import PANOPTIC_METRICS, Dataset
from segkit.data.loaders.readers import load_reader_dataset

TASKS = {"panoptic": PANOPTIC_METRICS, "instance_seg": ("mask_ap",), "sem_seg": ("semantic_iou",)}
SPLITS = ("train", "val", "trainval")
PLACES = ("VOC2012", "VOCdevkit/VOC2012")


def register(root: Path) -> None:
    """segkit_voc_2012_{panoptic,instance_seg,sem_seg}_{train,val,trainval}; stuff is the background alone, but in
    sem_seg, which does without SegmentationObject, all classes."""
    for task, metrics in TASKS.items():
        for split in SPLITS:
            name = f"segkit_voc_2012_{task}_{split}"
            register_dataset(name, partial(_load, name, root, split, metrics))


def _load(name: str, root: Path, split: str, metrics: tuple[str, ...]) -> Dataset:
    places = [root / place for place in PLACES]
    found = next((place for place in places if place.is_dir()), places[0])
    options: dict[str, str | None] = {"root": str(found), "split": split}
    if metrics == TASKS["sem_seg"]:
        options["objects"] = None
    return load_reader_dataset(name, "voc", options, metrics)
