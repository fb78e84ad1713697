"""ADE20K's 150 classes: panoptic, instances, semantic.

Below root/ADEChallengeData2016: images, annotations, annotations_instance and objectInfo150.txt as they are downloaded;
or Mask2Former's ade20k_panoptic_{train,val}.json and their PNGs, which panoptic and instance_seg take where they are.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import PANOPTIC_METRICS, Dataset
from segkit.data.loaders.readers import load_reader_dataset

TASKS = {"panoptic": PANOPTIC_METRICS, "instance_seg": ("mask_ap",), "sem_seg": ("semantic_iou",)}


def register(root: Path) -> None:
    """segkit_ade20k_{panoptic,instance_seg,sem_seg}_{train,val}."""
    for task in TASKS:
        for split in ("train", "val"):
            name = f"segkit_ade20k_{task}_{split}"
            register_dataset(name, partial(_load, name, root / "ADEChallengeData2016", task, split))


def _load(name: str, root: Path, task: str, split: str) -> Dataset:
    prepared = (root / f"ade20k_panoptic_{split}.json").is_file()
    annotations = "semantic" if task == "sem_seg" else "panoptic" if prepared else "instances"
    options = {"root": str(root), "split": split, "annotations": annotations}
    return load_reader_dataset(name, "ade20k", options, TASKS[task])
