"""The Cityscapes writer: written trees are read back, and errors are reported."""

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
from segkit.formats.cityscapes import CityscapesReader, CityscapesWriter, label_pngs
from segkit.structures import CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.cityscapes_tree import CITIES, make, prepare
from tests.helpers.coco_samples import CATEGORIES as OTHERS
from tests.helpers.coco_samples import files_below

AACHEN, ZURICH = CITIES


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root_folder = make(tmp_path / "cityscapes")
    prepare(monkeypatch, root_folder)
    return root_folder


def _store(writer: CityscapesWriter, image: DatasetImage, segmentation: PanopticSegmentation) -> list[str]:
    png.write(writer.image_path(image), np.zeros((*image.size_hw, 3), dtype=np.uint8))
    return writer.add(image, segmentation)


def _assert_equal_up_to_ids(first: PanopticSegmentation, second: PanopticSegmentation) -> None:
    def partition(x: PanopticSegmentation) -> set[tuple[int, bool, bool, bytes]]:
        return {(s.category_id, s.isthing, s.iscrowd, (x.segment_ids == s.segment_id).tobytes()) for s in x.segments}

    assert partition(first) == partition(second)


@st.composite
def segmentations(draw: st.DrawFn) -> PanopticSegmentation:
    """Draws segmentations that Cityscapes can hold: any ids, and one segment per stuff class and per crowd class."""
    shape = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    segment_ids = draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 6)))
    segments: list[Segment] = []
    used_classes: set[tuple[int, bool]] = set()
    for segment_id in np.unique(segment_ids).tolist():
        category = draw(st.sampled_from(cityscapes.CATEGORIES.categories))
        iscrowd = category.isthing and draw(st.booleans())
        merges = iscrowd or not category.isthing
        if segment_id == 0 or (merges and (category.category_id, iscrowd) in used_classes):
            segment_ids[segment_ids == segment_id] = 0
            continue
        used_classes.add((category.category_id, iscrowd))
        area_px = np.count_nonzero(segment_ids == segment_id)
        segments.append(Segment(segment_id, category.category_id, category.isthing, area_px, iscrowd))
    return PanopticSegmentation(segment_ids, tuple(segments))


@settings(deadline=None)
@given(segmentations())
def test_written_segmentations_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, segmentation: PanopticSegmentation
) -> None:
    root = tmp_path_factory.mktemp("written")
    height, width = segmentation.segment_ids.shape
    image = DatasetImage("ulm_000001_000019", "ulm/ulm_000001_000019_leftImg8bit.png", (height, width))
    with CityscapesWriter(root, cityscapes.CATEGORIES, split="train", train_ids=True) as writer:
        assert _store(writer, image, segmentation) == []
    reader = CityscapesReader(root, "train")
    assert reader.images == (image,)
    segmentation_read = reader.read_segmentation(image)
    _assert_equal_up_to_ids(segmentation_read, segmentation)
    stem = root / "gtFine/train/ulm/ulm_000001_000019_gtFine"
    for name, expected in (
        ("labelIds", label_pngs.encode_label_ids(segmentation)),
        ("labelTrainIds", label_pngs.encode_train_ids(segmentation)),
    ):
        np.testing.assert_array_equal(np.asarray(Image.open(f"{stem}_{name}.png")), expected, strict=True)


def test_a_dataset_is_written_back_with_equal_segment_ids(root: Path, tmp_path: Path) -> None:
    reader = CityscapesReader(root)
    with CityscapesWriter(tmp_path / "again", reader.categories) as writer:
        for image in reader.images:
            assert _store(writer, image, reader.read_segmentation(image)) == []
    written_reader = CityscapesReader(tmp_path / "again")
    assert written_reader.images == reader.images
    for image in reader.images:
        assert written_reader.read_segmentation(image).segments == reader.read_segmentation(image).segments
        np.testing.assert_array_equal(
            written_reader.read_segmentation(image).segment_ids, reader.read_segmentation(image).segment_ids
        )
    assert not any("TrainIds" in name for name in files_below(tmp_path / "again"))


def test_categories_are_matched_by_name_and_losses_are_reported(tmp_path: Path) -> None:
    # COCO's car is 3, a person 1; here the road is 7 as things, cars of 4 are stuff, trees are unknown.
    categories = CategorySet.from_coco(
        [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 4, "name": "car", "isthing": 0},
            {"id": 7, "name": "road", "isthing": 1},
            {"id": 26, "name": "tree", "isthing": 1},
        ],
        "x",
    )
    segments = (
        Segment(1, 1, True, 1, score=0.5),
        Segment(2, 4, False, 1),
        Segment(3, 7, True, 1),
        Segment(4, 7, True, 1, iscrowd=True),
        Segment(5, 26, True, 1),
        Segment(6, 1, True, 0),
        Segment(7, 1, True, 1, iscrowd=True),
        Segment(8, 1, True, 1, iscrowd=True),
    )
    segmentation = PanopticSegmentation(np.array([[1, 2, 3, 4, 5, 7, 8, 0]], dtype=np.int32), segments)
    writer = CityscapesWriter(tmp_path, categories)
    masks = [np.array([[1, 1, 0, 0, 0, 0, 0, 0]], dtype=bool), np.array([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)]
    losses = writer.add(
        DatasetImage(9, "9.jpg", (1, 8)), segmentation, [{"segmentation": mask_to_rle(m)} for m in masks]
    )
    assert losses == [
        "segment 2: car without instances is held as a crowd",
        "segment 4: road is stuff, it cannot be held as a crowd",
        "segment 5: no label of Cityscapes' is named 'tree', its pixels become unlabeled",
        "segment 4: road, it becomes one with segment 3",
        "segment 6: it has no pixel",
        "segment 8: a crowd of person, it becomes one with segment 7",
        "scores cannot be held: 1 segments have one",
        "annotations: 1 pixels under other masks cannot be held",
    ]
    written = np.asarray(Image.open(tmp_path / "gtFine/val/val/9_gtFine_instanceIds.png"))
    assert written.tolist() == [[24000, 26, 7, 7, 0, 24, 24, 0]]


def test_images_are_sorted_into_folders_of_cities(tmp_path: Path) -> None:
    writer = CityscapesWriter(tmp_path, cityscapes.CATEGORIES, split="train")
    for file_name, expected in (
        ("ulm/ulm_000001_000019_leftImg8bit.png", "ulm/ulm_000001_000019"),
        ("ulm_000001_000019_leftImg8bit.png", "ulm/ulm_000001_000019"),
        ("deep/folder/a.jpg", "folder/a"),
        ("000000000139.jpg", "train/000000000139"),
        ("my_photo.png", "train/my_photo"),
    ):
        path = writer.image_path(DatasetImage(1, file_name, (1, 1)))
        assert path == tmp_path / "leftImg8bit/train" / f"{expected}_leftImg8bit.png"


def test_invalid_images_and_segments_raise_an_error_and_write_nothing(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.array([[1]], dtype=np.int32), (Segment(1, 24, True, 1),))
    too_many_instances = PanopticSegmentation(
        segmentation.segment_ids, tuple(Segment(i, 24, True, 1) for i in range(1, 1002))
    )
    image = DatasetImage("a", "a.png", (1, 1))
    writer = CityscapesWriter(tmp_path, cityscapes.CATEGORIES)
    for file_name in (".a.png", ".d/a.png", "d\\a.png"):
        for work in (writer.image_path, lambda image: writer.add(image, segmentation)):
            with pytest.raises(DatasetError, match=r"without hidden parts and backslashes, got .*; rename the image"):
                work(DatasetImage("a", file_name, (1, 1)))
    with pytest.raises(DatasetError, match=r"image 'a': expected names of at most 255 bytes, got 265 .*; rename"):
        writer.add(DatasetImage("a", "a" * 240 + ".png", (1, 1)), segmentation)
    for file_name in ("../a.png", "/a.png", "..\\a.png", "", "a/"):
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.add(DatasetImage("a", file_name, (1, 1)), segmentation)
    with pytest.raises(DatasetError, match="image 'a': an image must have at most 1000 instances of person"):
        writer.add(image, too_many_instances)
    with pytest.raises(ValueError, match=r"category ids of the dataset, got \[99\]"):
        writer.add(image, PanopticSegmentation(segmentation.segment_ids, (Segment(1, 99, True, 1),)))
    with pytest.raises(ValueError, match="ids of segments only, got 1"):
        writer.add(image, PanopticSegmentation(segmentation.segment_ids, ()))
    with pytest.raises(DatasetError, match=r"expected `split`"):
        CityscapesWriter(tmp_path, cityscapes.CATEGORIES, split="../up")
    assert files_below(tmp_path) == set()
    writer.add(image, segmentation)
    for file_name in ("a.jpg", "other/a.png"):
        with pytest.raises(DatasetError, match=r"image 'b': labels of the name 'a' were written before.*; rename"):
            writer.add(DatasetImage("b", file_name, (1, 1)), segmentation)


def test_unknown_categories_raise_a_dataset_error(tmp_path: Path) -> None:
    unknown_categories = CategorySet([c for c in OTHERS.categories if c.name in ("cat", "grass")])
    with pytest.raises(DatasetError, match="expected categories with names of Cityscapes', got 'cat', 'grass'; rename"):
        CityscapesWriter(tmp_path, unknown_categories)
