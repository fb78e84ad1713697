"""Cityscapes' label PNGs, read and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats import cityscapes, png
from segkit.formats.base import DatasetImage
from segkit.formats.cityscapes import CityscapesReader, CityscapesWriter
from segkit.formats.cityscapes.label_pngs import read_label_id_segmentation, read_train_id_segmentation
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

# 0, 3 unlabeled and out of roi: void. 7 road. 26 a group of cars: crowd. 26000, 26001 cars. 29000 a caravan: void.
VALUES = np.array([[0, 3, 7, 7], [26, 26, 26000, 29000], [7, 26001, 26001, 26001]], dtype=np.uint16)
IDS = [[0, 0, 7, 7], [26, 26, 26000, 0], [7, 26001, 26001, 26001]]
SEGMENTS = (
    Segment(7, 7, False, 3),
    Segment(26, 26, True, 2, iscrowd=True),
    Segment(26000, 26, True, 1),
    Segment(26001, 26, True, 3),
)
VALID = [0, 4, 7, 8, 21, 24, 26, 29, 9000, 7000, 24000, 24999, 33001, 29003]


def test_categories_equal_detectron2() -> None:
    meta = pytest.importorskip("detectron2.data.datasets.builtin_meta", reason="Detectron2 is not installed")
    ours = [(c.category_id, c.name, int(c.isthing), c.color) for c in cityscapes.CATEGORIES.categories]
    assert ours == [(c["id"], c["name"], c["isthing"], c["color"]) for c in meta.CITYSCAPES_CATEGORIES]


def test_instance_ids_are_read(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", VALUES)
    segmentation = cityscapes.read_segmentation(tmp_path / "x.png", (3, 4))
    assert segmentation.segment_ids.tolist() == IDS
    assert segmentation.segment_ids.dtype == np.int32
    assert segmentation.segments == SEGMENTS


@settings(deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from(VALID)))
def test_written_instance_ids_are_read_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("ids")
    png.write(folder / "x.png", values)
    first = cityscapes.read_segmentation(folder / "x.png")
    png.write(folder / "y.png", cityscapes.encode_instance_ids(first))
    second = cityscapes.read_segmentation(folder / "y.png")
    np.testing.assert_array_equal(first.segment_ids, second.segment_ids)
    assert first.segments == second.segments


def test_other_ids_are_numbered() -> None:
    segments = (
        Segment(5, 26, True, 1),
        Segment(1, 26, True, 1),
        Segment(2, 26, True, 1, iscrowd=True),
        Segment(3, 7, False, 1),
        Segment(4, 24, True, 1),
    )
    segmentation = PanopticSegmentation(np.array([[1, 2, 3, 4, 5, 0]], dtype=np.int32), segments)
    written = cityscapes.encode_instance_ids(segmentation)
    assert written.dtype == np.uint16
    assert written.tolist() == [[26001, 26, 7, 24000, 26000, 0]]


def test_invalid_segmentations_raise_an_error() -> None:
    segment_ids = np.array([[1]], dtype=np.int32)
    many = tuple(Segment(i, 24, True, 1) for i in range(1, 1002))
    for segmentation, message in (
        (PanopticSegmentation(segment_ids, (Segment(1, 9, False, 1),)), r"Cityscapes label ids, got \[9\]"),
        (PanopticSegmentation(segment_ids, ()), "ids of segments only, got 1"),
        (PanopticSegmentation(segment_ids, many), "at most 1000 instances of person"),
    ):
        with pytest.raises(ValueError, match=message):
            cityscapes.encode_instance_ids(segmentation)


def test_values_without_label_raise_a_dataset_error(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", np.array([[7, 34, 999, 34000, 65535]], dtype=np.uint16))
    with pytest.raises(
        DatasetError, match=r"x\.png: expected label ids in 0..33, got the values 34, 999, 34000, 65535"
    ):
        cityscapes.read_segmentation(tmp_path / "x.png")


def test_8_bit_instance_ids_raise_a_dataset_error(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", VALUES.astype(np.uint8))
    with pytest.raises(DatasetError, match="expected a PNG of 16-bit greyscale, got 8-bit greyscale"):
        cityscapes.read_segmentation(tmp_path / "x.png")


def test_an_unexpected_size_raises_a_dataset_error(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", VALUES)
    with pytest.raises(DatasetError, match="expected 4 x 3 pixels"):
        cityscapes.read_segmentation(tmp_path / "x.png", (4, 3))


ROAD, CAR = 7, 26  # label ids; train ids 0 and 13
GROUND_TRUTH = PanopticSegmentation(
    np.array([[26000, 26001, 0], [7, 7, 7]], np.int32),
    (Segment(7, ROAD, False, 3), Segment(26000, CAR, True, 1), Segment(26001, CAR, True, 1)),
)


def write_tree(root: Path) -> None:
    image = DatasetImage("x", "aachen/aachen_000000_000001_leftImg8bit.png", (2, 3))
    with CityscapesWriter(root, cityscapes.CATEGORIES, train_ids=True) as writer:
        writer.add(image, GROUND_TRUTH)
    writer.image_path(image).parent.mkdir(parents=True)
    Image.fromarray(np.full((2, 3, 3), 9, np.uint8)).save(writer.image_path(image))


@pytest.mark.parametrize("annotations", ["labelIds", "trainIds"])
def test_classes_are_read_and_things_are_crowds(tmp_path: Path, annotations: str) -> None:
    write_tree(tmp_path)
    reader = CityscapesReader(tmp_path, annotations=annotations)
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[CAR, CAR, 0], [ROAD, ROAD, ROAD]]
    assert [(s.category_id, s.isthing, s.iscrowd, s.area_px) for s in segmentation.segments] == [
        (ROAD, False, False, 3),
        (CAR, True, True, 2),
    ]


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (read_label_id_segmentation, 34, r"expected label ids in 0\.\.33, got 34"),
        (read_train_id_segmentation, 19, r"expected train ids in 0\.\.18 or 255, got 19"),
    ],
)
def test_unknown_values_and_unexpected_sizes_raise_a_dataset_error(
    tmp_path: Path, read: object, value: int, message: str
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[value, 0]], np.uint8)).save(path)
    with pytest.raises(DatasetError, match=message):
        read(path)  # type: ignore[operator]
    Image.fromarray(np.zeros((1, 2), np.uint8)).save(path)
    with pytest.raises(DatasetError, match="expected 3 x 4 pixels"):
        read(path, (3, 4))  # type: ignore[operator]
