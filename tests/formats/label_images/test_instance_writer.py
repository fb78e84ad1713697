from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats.base import DatasetImage
from segkit.formats.label_images import InstanceMapReader, InstanceMapWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.coco_samples import CATEGORIES, files_below, first_image

CELLS = CategorySet([Category(1, "object", True, (1, 2, 3)), Category(2, "background", False, (4, 5, 6))])


def read_back(root: Path, image: DatasetImage, **options: object) -> PanopticSegmentation:
    path = root / "images" / image.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", image.size_hw[::-1]).save(path)
    reader = InstanceMapReader(root, **options)
    return reader.read_segmentation(reader.images[0])


@settings(deadline=None, max_examples=50)
@given(values=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 4)))
def test_written_segmentations_are_read_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    # 0 is the background, segment 77; objects have ids that are neither dense nor sorted.
    ids = np.array([77, 9, 1000, 3, 70000], dtype=np.int32)[values]
    kinds = {70000: 1, 9: 1, 77: 2, 1000: 1, 3: 1}
    segments = tuple(Segment(i, kinds[i], kinds[i] == 1, int((ids == i).sum())) for i in kinds if (ids == i).any())
    segmentation = PanopticSegmentation(ids, segments)
    image = DatasetImage(5, "sub/x.png", values.shape)
    root = tmp_path_factory.mktemp("maps")
    with InstanceMapWriter(root, CELLS) as writer:
        assert writer.add(image, segmentation) == []
        assert writer.image_path(image) == root / "images/sub/x.png"
    written = read_back(root, image)
    expected = [s for s in segments if s.isthing] + [s for s in segments if not s.isthing]
    assert [(s.category_id, s.area_px) for s in written.segments] == [(s.category_id, s.area_px) for s in expected]
    for segment, expected_segment in zip(written.segments, expected, strict=True):
        np.testing.assert_array_equal(written.segment_ids == segment.segment_id, ids == expected_segment.segment_id)
    assert [s.segment_id for s in written.segments if s.isthing] == list(range(1, sum(s.isthing for s in segments) + 1))


def test_losses_are_reported(tmp_path: Path) -> None:
    image, segmentation = DatasetImage(11, "eleven.jpg", (3, 4)), first_image()
    cat = Segment(8, 3, True, 0)
    with InstanceMapWriter(tmp_path, CATEGORIES) as writer:
        lines = writer.add(image, PanopticSegmentation(segmentation.segment_ids, (*segmentation.segments, cat)))
    assert lines == [
        "segment 300: crowds cannot be held",
        "segment 70000: the stuff sky cannot be held",
        "segment 8: it has no pixel",
        "scores cannot be held: 1 segments have one",
    ]
    assert files_below(tmp_path) == {"labels/eleven.png"}
    np.testing.assert_array_equal(
        read_back(tmp_path, image, background=None).segment_ids, segmentation.segment_ids == 7
    )
    with InstanceMapWriter(tmp_path / "cats", CATEGORIES, thing="cat", background="sky") as writer:
        # Two pixels of void in first_image, and two of the crowd, which has its own line.
        assert writer.add(image, segmentation)[:3] == [
            "segment 300: crowds cannot be held",
            "segment 7: its class person cannot be held, objects have one class",
            "void: 2 pixels become background",
        ]


def test_overlaps_are_reported(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.ones((2, 2), dtype=np.int32), (Segment(1, 1, True, 4),))
    whole, part = np.ones((2, 2), dtype=bool), np.array([[1, 1], [0, 0]], dtype=bool)
    annotations = [{"segmentation": mask_to_rle(mask)} for mask in (whole, part, part)]
    writer = InstanceMapWriter(tmp_path, CELLS)
    assert writer.add(DatasetImage(1, "a.png", (2, 2)), segmentation, annotations) == [
        "annotations: 4 pixels under other masks cannot be held"
    ]
    assert writer.add(DatasetImage(2, "b.png", (2, 2)), segmentation, annotations[:1]) == []


@pytest.mark.parametrize(("count", "mode"), [(255, "L"), (256, "I;16"), (65535, "I;16")])
def test_bit_depth_depends_on_the_number_of_objects(tmp_path: Path, count: int, mode: str) -> None:
    ids = np.arange(1, count + 1, dtype=np.int32)[None]
    segmentation = PanopticSegmentation(ids, tuple(Segment(i, 1, True, 1) for i in range(1, count + 1)))
    InstanceMapWriter(tmp_path, CELLS).add(DatasetImage(1, "x.png", ids.shape), segmentation)
    with Image.open(tmp_path / "labels/x.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), ids)


def test_invalid_arguments_raise_an_error(tmp_path: Path) -> None:
    writer = InstanceMapWriter(tmp_path / "out", CATEGORIES)
    segmentation, size_hw = first_image(), (3, 4)
    for name in ("../x.png", "/x.png", "a/../../x.png", "", "a\0.png"):
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.add(DatasetImage(1, name, size_hw), segmentation)
    many = np.arange(1, 65537, dtype=np.int32)[None]
    crowded = PanopticSegmentation(many, tuple(Segment(i, 1, True, 1) for i in range(1, 65537)))
    with pytest.raises(DatasetError, match="expected at most 65535 objects, got 65536"):
        writer.add(DatasetImage(1, "x.png", many.shape), crowded)
    with pytest.raises(ValueError, match="must be of the image's size"):
        writer.add(DatasetImage(1, "x.png", (4, 3)), segmentation)
    with pytest.raises(ValueError, match="must hold ids of segments only, got 70000"):
        writer.add(DatasetImage(1, "x.png", size_hw), PanopticSegmentation(*_without_sky(segmentation)))
    sea = Segment(70000, 99, False, 4)
    with pytest.raises(ValueError, match=r"must have category ids of the dataset, got \[99\]"):
        writer.add(DatasetImage(1, "x.png", size_hw), PanopticSegmentation(segmentation.segment_ids, (sea,)))
    assert files_below(tmp_path) == set()
    writer.add(DatasetImage(1, "x.png", size_hw), segmentation)
    with pytest.raises(DatasetError, match="an image named x was added before; rename the image"):
        writer.add(DatasetImage(2, "x.jpg", size_hw), segmentation)
    with pytest.raises(DatasetError, match="expected a thing category 'dog', got 'person', 'cat'"):
        InstanceMapWriter(tmp_path, CATEGORIES, thing="dog")
    with pytest.raises(DatasetError, match="expected categories with things, all are stuff"):
        InstanceMapWriter(tmp_path, CategorySet(CATEGORIES.stuff))
    for folder in ("..", "/tmp", "../labels", ""):
        for options in ({"images": folder}, {"labels": folder}):
            with pytest.raises(DatasetError, match=r"expected `\w+` to be a path inside its folder"):
                InstanceMapWriter(tmp_path, CATEGORIES, **options)
    with pytest.raises(ConfigError, match="expected two folders, got 'labels' for the images and the labels"):
        InstanceMapWriter(tmp_path, CATEGORIES, images="labels")


def _without_sky(segmentation: PanopticSegmentation) -> tuple[np.ndarray, tuple[Segment, ...]]:
    return segmentation.segment_ids, tuple(s for s in segmentation.segments if s.category_id != 10)
