"""Cityscapes fine annotations: panoptic, instances, semantic; Detectron2's names with `segkit_` in front.

Below root/cityscapes: leftImg8bit/{split}/{city}/*_leftImg8bit.png, gtFine/{split}/{city}/*_gtFine_instanceIds.png, as
they are downloaded; nothing is to be prepared.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import PANOPTIC_METRICS, Dataset
from segkit.formats import cityscapes, png

TASKS = {
    "panoptic": (*PANOPTIC_METRICS, "cityscapes_ap"),
    "instance_seg": ("mask_ap", "cityscapes_ap"),
    "sem_seg": ("semantic_iou",),
}


def register(root: Path) -> None:
    """segkit_cityscapes_fine_{panoptic,instance_seg,sem_seg}_{train,val}."""
    for task, metrics in TASKS.items():
        for split in ("train", "val"):
            name = f"segkit_cityscapes_fine_{task}_{split}"
            register_dataset(name, partial(load, name, root / "cityscapes", split, metrics), cityscapes.CATEGORIES)


def load(name: str, root: Path, split: str, metrics: tuple[str, ...]) -> Dataset:
    """The images of gtFine/<split> below root; they are judged by Cityscapes' AP too, which reads these files."""
    records = []
    for found in cityscapes.find_records(root, split):
        header = png.read_header(found.ground_truth_path)
        records.append(
            {
                "file_name": str(found.image_path),
                "image_id": found.image_id,
                "height": header.height,
                "width": header.width,
                "pan_seg_file_name": str(found.ground_truth_path),
                "pan_seg_format": "cityscapes",
            }
        )
    metadata = {"image_root": str(root / "leftImg8bit" / split)}
    return Dataset(name, cityscapes.CATEGORIES, metrics, records, metadata=metadata)
