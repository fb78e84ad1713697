"""Which task a file or folder of predictions is for."""

from __future__ import annotations

from pathlib import Path

from segkit.utils.files import read_bytes


def find_prediction_kind(path: str | Path) -> str:
    """Find the kind of predictions from their first bytes and their keys, without parsing.

    Args:
        path: A panoptic JSON, COCO's list of results, Detectron2's sem_seg_predictions.json, or a folder of label PNGs.

    Returns:
        "panoptic", "instances" or "semantic". A list is COCO's, unless its entries name files and no image ids.

    Raises:
        DatasetError: The file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return "semantic"
    if not read_bytes(path, 64).lstrip().startswith(b"["):
        return "panoptic"
    content = read_bytes(path)
    return "semantic" if b'"image_id"' not in content and b'"file_name"' in content else "instances"
