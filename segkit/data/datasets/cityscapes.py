"""Cityscapes' fine annotations: panoptic, instances, semantic; Detectron2's names with `segkit_` in front.

Below root/cityscapes: leftImg8bit/{split}/{city}/*_leftImg8bit.png, gtFine/{split}/{city}/*_gtFine_instanceIds.png, as
they are downloaded.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import TASK_METRICS
from segkit.data.loaders.readers import load_reader_dataset
from segkit.formats.cityscapes import CATEGORIES


def register(root: Path) -> None:
    """Register segkit_cityscapes_fine_{panoptic,instance_seg,sem_seg}_{train,val}.

    Args:
        root: folder that holds cityscapes/.
    """
    for task, metrics in TASK_METRICS.items():
        metrics = metrics if task == "sem_seg" else (*metrics, "cityscapes_ap")
        for split in ("train", "val"):
            name, options = f"segkit_cityscapes_fine_{task}_{split}", {"root": str(root / "cityscapes"), "split": split}
            register_dataset(name, partial(load_reader_dataset, name, "cityscapes", options, metrics), CATEGORIES)
