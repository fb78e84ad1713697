"""Label ids and train ids: what the writer makes of two cars, a road and void, read back without the instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.formats.base import DatasetImage
from segkit.formats.cityscapes import CityscapesReader, CityscapesWriter
from segkit.formats.cityscapes import files as cityscapes
from segkit.formats.cityscapes.label_ids import read_label_id_segmentation, read_train_id_segmentation
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

ROAD, CAR = 7, 26  # label ids; train ids 0 and 13
GROUND_TRUTH = PanopticSegmentation(
    np.array([[26000, 26001, 0], [7, 7, 7]], np.int32),
    (Segment(7, ROAD, False, 3), Segment(26000, CAR, True, 1), Segment(26001, CAR, True, 1)),
)


def tree(root: Path) -> None:
    image = DatasetImage("x", "aachen/aachen_000000_000001_leftImg8bit.png", (2, 3))
    with CityscapesWriter(root, cityscapes.CATEGORIES, train_ids=True) as writer:
        writer.add(image, GROUND_TRUTH)
    writer.image_path(image).parent.mkdir(parents=True)
    Image.fromarray(np.full((2, 3, 3), 9, np.uint8)).save(writer.image_path(image))


@pytest.mark.parametrize("annotations", ["labelIds", "trainIds"])
def test_classes_are_read_and_things_are_crowds(tmp_path: Path, annotations: str) -> None:
    tree(tmp_path)
    source = CityscapesReader(tmp_path, annotations=annotations)
    found = source.read_segmentation(source.images[0])
    assert found.segment_ids.tolist() == [[CAR, CAR, 0], [ROAD, ROAD, ROAD]]
    assert [(s.category_id, s.isthing, s.iscrowd, s.area_px) for s in found.segments] == [
        (ROAD, False, False, 3),
        (CAR, True, True, 2),
    ]


@pytest.mark.parametrize(
    ("read", "value", "told"),
    [
        (read_label_id_segmentation, 34, r"expected label ids in 0\.\.33, got 34"),
        (read_train_id_segmentation, 19, r"expected train ids in 0\.\.18 or 255, got 19"),
    ],
)
def test_other_values_and_sizes_are_refused(tmp_path: Path, read: object, value: int, told: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[value, 0]], np.uint8)).save(path)
    with pytest.raises(DatasetError, match=told):
        read(path)  # type: ignore[operator]
    Image.fromarray(np.zeros((1, 2), np.uint8)).save(path)
    with pytest.raises(DatasetError, match="expected 3 x 4 pixels"):
        read(path, (3, 4))  # type: ignore[operator]
