"""Detectron2's dataset dicts over two drawn images, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from segkit.formats import coco, png
from segkit.structures import mask_to_rle

SIZE_HW = (48, 64)
SQUARE, DISK = (slice(8, 24), slice(8, 24)), (slice(20, 40), slice(40, 60))  # rows and columns of the two objects
POLYGON = [8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0]


def draw_masks() -> tuple[np.ndarray, np.ndarray]:
    """The masks of the square and of the disk."""
    square, disk = np.zeros(SIZE_HW, dtype=np.bool_), np.zeros(SIZE_HW, dtype=np.bool_)
    square[SQUARE] = disk[DISK] = True
    return square, disk


def instance_dicts(folder: Path, disk_mask: str = "polygon", images: int = 2) -> list[dict[str, Any]]:
    """Records with a square in XYXY and a disk in XYWH, the disk as "polygon", "rle", "uncompressed" or "bitmask"."""
    _, disk = draw_masks()
    masks: dict[str, Any] = {
        "polygon": [[40.0, 20.0, 60.0, 20.0, 60.0, 40.0, 40.0, 40.0]],
        "rle": mask_to_rle(disk),
        "uncompressed": {"size": [*SIZE_HW], "counts": _count_runs(disk)},
        "bitmask": disk,
    }
    records = []
    for number in range(images):
        path = folder / "images" / f"{number}.png"
        png.write(path, np.full((*SIZE_HW, 3), 60 + 40 * number, dtype=np.uint8))
        square = {"bbox": [8, 8, 24, 24], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "segmentation": [POLYGON]}
        other = {"bbox": [40, 20, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
        annotations = [square, {**other, "segmentation": masks[disk_mask]}]
        size = {"height": SIZE_HW[0], "width": SIZE_HW[1]}
        records.append({"file_name": str(path), "image_id": number, **size, "annotations": annotations})
    return records


def add_semantic_maps(records: list[dict[str, Any]], folder: Path) -> None:
    """Add sem_seg_file_name: 0 for things, 1 for the upper half of the rest, 2 for the lower half."""
    square, disk = draw_masks()
    labels = np.full(SIZE_HW, 2, dtype=np.uint8)
    labels[: SIZE_HW[0] // 2] = 1
    labels[square | disk] = 0
    for record in records:
        path = folder / "labels" / Path(record["file_name"]).name
        png.write(path, labels)
        record["sem_seg_file_name"] = str(path)


def add_panoptic_maps(records: list[dict[str, Any]], folder: Path) -> None:
    """Replace the annotations by pan_seg_file_name and segments_info with contiguous ids."""
    square, disk = draw_masks()
    ids = np.where(square, 11, np.where(disk, 12, 13)).astype(np.int32)
    for record in records:
        path = folder / "panoptic" / Path(record["file_name"]).name
        coco.write_png(path, ids)
        del record["annotations"]
        record["pan_seg_file_name"] = str(path)
        record["segments_info"] = [
            {"id": 11, "category_id": 0, "isthing": True, "iscrowd": 0},
            {"id": 12, "category_id": 1, "isthing": True, "iscrowd": 0},
            {"id": 13, "category_id": 1, "isthing": False, "iscrowd": 0},
        ]


def _count_runs(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE: lengths of runs in columns, the first of background."""
    values = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(np.diff(values.astype(np.int8)))
    return np.diff([0, *starts.tolist(), mask.size]).tolist()
