"""ADE20K's 150 classes: panoptic, instances, semantic.

Below root/ADEChallengeData2016: images, annotations, annotations_instance and objectInfo150.txt as they are downloaded.
If Mask2Former's ade20k_panoptic_{train,val}.json and their PNGs exist, panoptic and instance_seg use these.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from segkit.data.catalog import register_files
from segkit.data.dataset import TASK_METRICS


def register(root: str | Path) -> None:
    """Register segkit_ade20k_{panoptic,instance_seg,sem_seg}_{train,val}.

    Args:
        root: folder that holds ADEChallengeData2016/.
    """
    root = Path(root)
    folder = root / "ADEChallengeData2016"
    for task, split in product(TASK_METRICS, ("train", "val")):
        options = partial(_find_options, folder, task, split)
        register_files(f"segkit_ade20k_{task}_{split}", "ade20k", options, TASK_METRICS[task])


def _find_options(root: Path, task: str, split: str) -> dict[str, Any]:
    prepared = (root / f"ade20k_panoptic_{split}.json").is_file()
    annotations = "semantic" if task == "sem_seg" else "panoptic" if prepared else "instances"
    return {"root": str(root), "split": split, "annotations": annotations}
