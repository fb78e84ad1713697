"""The ground truth of a record, from the files that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.data.ground_truth import read_segmentation
from segkit.structures import Category, CategorySet
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(0, "ground", False, (1, 2, 3)), Category(1, "sky", False, (4, 5, 6))])


def write_record(path: Path, labels: np.ndarray) -> dict[str, object]:
    Image.fromarray(labels).save(path)
    return {"sem_seg_file_name": str(path), "height": 1, "width": 3}


def test_semantic_labels_are_segments_and_255_is_void(tmp_path: Path) -> None:
    ground_truth = read_segmentation(write_record(tmp_path / "a.png", np.array([[0, 1, 255]], np.uint8)), CATEGORIES)
    assert ground_truth.segment_ids.tolist() == [[1, 2, 0]]
    assert [(s.segment_id, s.category_id, s.area_px) for s in ground_truth.segments] == [(1, 0, 1), (2, 1, 1)]


def test_semantic_labels_of_16_bits_are_rejected_instead_of_clipped(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.png: expected an 8-bit label map.*docs/datasets"):
        read_segmentation(write_record(tmp_path / "a.png", np.array([[0, 1, 300]], np.uint16)), CATEGORIES)
