"""ADE20K's 150 classes: panoptic, instances, semantic.

Below root/ADEChallengeData2016: images, annotations, annotations_instance and objectInfo150.txt as they are downloaded.
If Mask2Former's ade20k_panoptic_{train,val}.json and their PNGs exist, panoptic and instance_seg use these.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import TASK_METRICS, Dataset
from segkit.data.loaders.readers import load_reader_dataset


def register(root: Path) -> None:
    """Register segkit_ade20k_{panoptic,instance_seg,sem_seg}_{train,val}.

    Args:
        root: folder that holds ADEChallengeData2016/.
    """
    for task in TASK_METRICS:
        for split in ("train", "val"):
            name = f"segkit_ade20k_{task}_{split}"
            register_dataset(name, partial(_load, name, root / "ADEChallengeData2016", task, split))


def _load(name: str, root: Path, task: str, split: str) -> Dataset:
    prepared = (root / f"ade20k_panoptic_{split}.json").is_file()
    annotations = "semantic" if task == "sem_seg" else "panoptic" if prepared else "instances"
    options = {"root": str(root), "split": split, "annotations": annotations}
    return load_reader_dataset(name, "ade20k", options, TASK_METRICS[task])
