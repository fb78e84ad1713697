"""Cityscapes' semantic PNGs: label ids, and the train ids that are made of them; no instance is told from another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.cityscapes.files import LABELS, LAST_LABEL_ID, build_segmentation
from segkit.structures import IGNORE_LABEL, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate

LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"  # preparation/createTrainIdLabelImgs.py


def read_label_id_segmentation(path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """The classes of one *_labelIds.png, one segment each with the label id as segment_id; things are crowds.

    Labels ignored in evaluation are void. Raises DatasetError where the file is missing, damaged, no map, not of
    `size_hw` pixels, or holds a value of no label.
    """
    labels = _read(Path(path), size_hw)
    if (strange := np.unique(labels[labels > LAST_LABEL_ID])).size:  # else they would be instances
        problem = f"expected label ids in 0..{LAST_LABEL_ID}, got {abbreviate(strange.tolist())}"
        raise DatasetError(problem, where=path)
    return build_segmentation(labels, path)


def read_train_id_segmentation(path: str | Path, size_hw: tuple[int, int] | None = None) -> PanopticSegmentation:
    """The classes of one *_labelTrainIds.png, 0..18 and `IGNORE_LABEL` for void, as `read_label_ids` gives them."""
    train_ids = _read(Path(path), size_hw)
    label_of = {label.train_id: label.label_id for label in LABELS if not label.ignored} | {IGNORE_LABEL: 0}
    if strange := sorted({*np.unique(train_ids).tolist()} - {*label_of}):
        problem = f"expected train ids in 0..{len(label_of) - 2} or {IGNORE_LABEL}, got {abbreviate(strange)}"
        raise DatasetError(problem, where=path)
    lookup = np.zeros(IGNORE_LABEL + 1, dtype=np.int32)
    lookup[[*label_of]] = [*label_of.values()]
    return build_segmentation(lookup[train_ids], path)


def _read(path: Path, size_hw: tuple[int, int] | None) -> NDArray[np.int32]:
    labels = png.read_labels(path).astype(np.int32)
    if size_hw is not None and labels.shape != tuple(size_hw):
        raise DatasetError(f"expected {size_hw[0]} x {size_hw[1]} pixels, got {labels.shape}", where=path)
    return labels
