"""Cityscapes' fine annotations: panoptic, instances, semantic; Detectron2's names with `segkit_` in front.

Below root/cityscapes: leftImg8bit/{split}/{city}/*_leftImg8bit.png, gtFine/{split}/{city}/*_gtFine_instanceIds.png, as
they are downloaded.
"""

from __future__ import annotations

from pathlib import Path

from segkit.data.catalog import register_files
from segkit.data.dataset import TASK_METRICS
from segkit.formats.cityscapes import CATEGORIES


def register(root: str | Path) -> None:
    """Register segkit_cityscapes_fine_{panoptic,instance_seg,sem_seg}_{train,val}.

    Args:
        root: folder that holds cityscapes/.
    """
    root = Path(root)
    for task, metrics in TASK_METRICS.items():
        metrics = metrics if task == "sem_seg" else (*metrics, "cityscapes_ap")
        for split in ("train", "val"):
            options = {"root": str(root / "cityscapes"), "split": split}
            register_files(f"segkit_cityscapes_fine_{task}_{split}", "cityscapes", options, metrics, CATEGORIES)
