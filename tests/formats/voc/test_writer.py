from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.curation.convert import convert
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco import TwoChannelReader, TwoChannelWriter
from segkit.formats.label_images import InstanceMapReader, InstanceMapWriter
from segkit.formats.voc import CLASS_NAMES, VOCReader, VOCWriter, compute_color_map
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, files_below
from tests.helpers.voc_tree import (
    CLASS_LABELS,
    IDS,
    OBJECT_LABELS,
    SEGMENTS,
    VOC_CATEGORIES,
    add_image,
    store_image,
    store_set,
)


def _image(segment_ids: np.ndarray, name: str = "x.jpg") -> DatasetImage:
    return DatasetImage(1, name, segment_ids.shape)


def _write(root: Path, segmentation: PanopticSegmentation, categories: CategorySet, **options: int) -> list[str]:
    with VOCWriter(root, categories, **options) as writer:
        return writer.add(_image(segmentation.segment_ids), segmentation)


def _pixels(path: Path) -> list:
    return np.asarray(Image.open(path)).tolist()


def test_pngs_image_set_and_class_names_are_written(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.array(IDS, dtype=np.int32), SEGMENTS)
    with VOCWriter(tmp_path, VOC_CATEGORIES, split="val") as writer:
        for name in ("b.jpg", "aachen/a.b.png"):
            assert writer.add(_image(segmentation.segment_ids, name), segmentation) == []
    for name in ("b", "aachen/a.b"):
        assert _pixels(tmp_path / f"SegmentationClass/{name}.png") == CLASS_LABELS
        assert _pixels(tmp_path / f"SegmentationObject/{name}.png") == OBJECT_LABELS
        for folder in ("SegmentationClass", "SegmentationObject"):
            image = Image.open(tmp_path / folder / f"{name}.png")
            assert image.mode == "P"
            assert image.getpalette() == compute_color_map().ravel().tolist()
    assert (tmp_path / "ImageSets/Segmentation/val.txt").read_bytes() == b"b\naachen/a.b\n"
    assert (tmp_path / "class_names.txt").read_text().split() == ["_background_", *CLASS_NAMES]


def test_other_segment_ids_and_categories_are_numbered(tmp_path: Path) -> None:
    ids = np.array([[300, 20, 0, 7]], dtype=np.int32)
    segments = (Segment(300, 3, True, 1), Segment(20, 1, True, 1), Segment(7, 3, True, 1))
    assert _write(tmp_path, PanopticSegmentation(ids, segments), CATEGORIES) == []
    # person (1) and cat (3) are the first two things: labels 1 and 2.
    assert _pixels(tmp_path / "SegmentationClass/x.png") == [[2, 1, 255, 2]]
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [[1, 2, 255, 3]]
    assert (tmp_path / "class_names.txt").read_text() == "_background_\nperson\ncat\n"


def test_losses_are_reported(tmp_path: Path) -> None:
    ids = np.array([[1, 2, 3, 4, 5, 0]], dtype=np.int32)
    segments = (
        Segment(1, 1, True, 1, score=0.5),
        Segment(2, 3, True, 1, iscrowd=True),
        Segment(3, 10, False, 1),
        Segment(4, 0, False, 1),
        Segment(5, 0, False, 1),
        Segment(6, 3, True, 0),
    )
    categories = CategorySet([Category(0, "background", False, (0, 0, 0)), *CATEGORIES.categories])
    assert _write(tmp_path, PanopticSegmentation(ids, segments), categories) == [
        "segment 2: crowds cannot be held, its pixels are void",
        "segment 3: sky is held as background, without a segment of its own",
        "segment 5: background is held as background, without a segment of its own",
        "segment 6: it has no pixel",
        "scores cannot be held: 1 segments have one",
    ]
    assert _pixels(tmp_path / "SegmentationClass/x.png") == [[1, 255, 0, 0, 0, 255]]
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [[1, 255, 0, 0, 0, 255]]


def test_the_largest_254_objects_are_kept(tmp_path: Path) -> None:
    # 256 objects; number 5 and number 256 have one pixel, the others two.
    ids = np.repeat(np.arange(1, 257, dtype=np.int32), 2)[None]
    ids[0, [9, 511]] = 0
    segments = tuple(Segment(i, 1, True, 1 if i in (5, 256) else 2) for i in range(1, 257))
    losses = _write(tmp_path, PanopticSegmentation(ids, segments), CATEGORIES)
    assert losses == [f"segment {i}: an image has at most 254 objects, its pixels are void" for i in (5, 256)]
    labels = np.array(_pixels(tmp_path / "SegmentationObject/x.png"))[0]
    assert labels[[8, 9, 510, 511]].tolist() == [255] * 4
    # Segment 255 is the 254th that remains, so that segments are numbered.
    assert labels[[0, 7, 10, 509]].tolist() == [1, 4, 5, 254]


def test_a_border_is_drawn_around_objects(tmp_path: Path) -> None:
    ids = np.array([[9, 9, 9, 9, 9, 9, 9]] * 2 + [[9, 9, 9, 1, 1, 1, 1]] * 2 + [[2, 9, 9, 1, 1, 1, 1]], dtype=np.int32)
    segments = (Segment(1, 15, True, 12), Segment(2, 15, True, 1), Segment(9, 0, False, 22))
    losses = _write(tmp_path, PanopticSegmentation(ids, segments), VOC_CATEGORIES, border_px=1)
    # Within one row and column of another label: rows 1 and 2 and columns 2 and 3 along object 1, and all of object 2.
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 255, 255, 255, 255, 255],
        [0, 0, 255, 255, 255, 255, 255],
        [255, 255, 255, 255, 1, 1, 1],
        [255, 255, 255, 255, 1, 1, 1],
    ]
    assert _pixels(tmp_path / "SegmentationClass/x.png")[4] == [255, 255, 255, 255, 15, 15, 15]
    assert losses == ["segment 2: the border covers it"]


@st.composite
def _label_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Valid PNGs: every object has one class."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    objects = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3, 100, 254, 255])))
    class_by_object = np.array(draw(st.lists(st.integers(1, 20), min_size=256, max_size=256)), dtype=np.uint8)
    class_by_object[[0, 255]] = 0, 255
    return class_by_object[objects], objects


@settings(max_examples=60)
@given(_label_pairs())
def test_read_labels_are_written_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, labels: tuple[np.ndarray, np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("voc")
    add_image(folder / "a", "x", *labels)
    store_set(folder / "a", "x")
    reader = VOCReader(folder / "a")
    first = reader.read_segmentation(reader.images[0])
    with VOCWriter(folder / "b", reader.categories) as writer:
        assert writer.add(reader.images[0], first) == []
    for name, values in zip(("SegmentationClass", "SegmentationObject"), labels, strict=True):
        assert _pixels(folder / "b" / name / "x.png") == values.tolist()
    store_image(folder / "b/JPEGImages/x.jpg", labels[0].shape)
    written = VOCReader(folder / "b")
    assert written.categories == reader.categories
    second = written.read_segmentation(written.images[0])
    np.testing.assert_array_equal(first.segment_ids, second.segment_ids)
    assert first.segments == second.segments


@settings(max_examples=60)
@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 6)),
    st.permutations([7, 300, 255, 70000, 2, 9]),
    st.lists(st.sampled_from([1, 3, 0]), min_size=6, max_size=6),
)
def test_any_segmentation_of_things_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, indices: np.ndarray, segment_ids: list[int], category_ids: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("voc")
    ids = np.array([0, *segment_ids], dtype=np.int32)[indices]
    categories = CategorySet([Category(0, "background", False, (0, 0, 0)), *CATEGORIES.categories])
    segments = tuple(
        Segment(i, c, categories.isthing_by_id[c], int((ids == i).sum()))
        for i, c in zip(segment_ids, category_ids, strict=True)
        if (ids == i).any()
    )
    losses = _write(folder, PanopticSegmentation(ids, segments), categories)
    stuff = [s.segment_id for s in segments if not s.isthing]
    assert [line.split(":")[0] for line in losses] == [f"segment {i}" for i in stuff[1:]]
    store_image(folder / "JPEGImages/x.jpg", ids.shape)
    reader = VOCReader(folder)
    segmentation = reader.read_segmentation(reader.images[0])
    masks = {
        ((segmentation.segment_ids == s.segment_id).tobytes(), reader.categories[s.category_id].name)
        for s in segmentation.segments
    }
    expected = {((ids == s.segment_id).tobytes(), categories[s.category_id].name) for s in segments if s.isthing}
    if stuff:
        expected.add((np.isin(ids, stuff).tobytes(), "background"))
    assert masks == expected
    assert {s.area_px for s in segmentation.segments} == {
        int((segmentation.segment_ids == s.segment_id).sum()) for s in segmentation.segments
    }


def test_an_exception_keeps_the_earlier_image_set(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.array(IDS, dtype=np.int32), SEGMENTS)
    store_set(tmp_path, "before\n")

    def write_and_interrupt() -> None:
        with VOCWriter(tmp_path, VOC_CATEGORIES) as writer:
            writer.add(_image(segmentation.segment_ids), segmentation)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt()
    assert (tmp_path / "ImageSets/Segmentation/train.txt").read_text() == "before\n"
    assert not (tmp_path / "class_names.txt").exists()


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "a\\..\\x.jpg", "", "a/"])
def test_file_names_outside_the_folder_raise_a_dataset_error(tmp_path: Path, name: str) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    with pytest.raises(DatasetError, match="expected `file_name` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES).add(_image(segmentation.segment_ids, name), segmentation)
    with pytest.raises(DatasetError, match="expected `file_name` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES).image_path(_image(segmentation.segment_ids, name))
    with pytest.raises(DatasetError, match="expected `split` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES, split=name)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", ["a\nb.jpg", " a.jpg", "a .jpg", "a\rb.jpg", "\ud800.jpg"])
def test_file_names_that_cannot_be_a_line_raise_a_dataset_error(tmp_path: Path, name: str) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    with pytest.raises(DatasetError, match="image 1: expected a file_name that can be a line of an image set"):
        VOCWriter(tmp_path, CATEGORIES).add(_image(segmentation.segment_ids, name), segmentation)
    assert files_below(tmp_path) == set()


def test_repeated_image_names_raise_a_dataset_error(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    writer = VOCWriter(tmp_path, CATEGORIES)
    writer.add(_image(segmentation.segment_ids, "a/x.jpg"), segmentation)
    for name in ("a/x.png", "a//x.jpg", "./a/x.jpg"):
        with pytest.raises(DatasetError, match="an image named a/x was added before; rename"):
            writer.add(_image(segmentation.segment_ids, name), segmentation)
    writer.add(_image(segmentation.segment_ids, "x.jpg"), segmentation)


def test_a_folder_with_labels_of_other_classes_raises_a_dataset_error(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    _write(tmp_path, segmentation, CATEGORIES)
    assert VOCWriter(tmp_path, CATEGORIES, split="val").image_path(_image(np.ones((1, 1)), "a/x.png")) == (
        tmp_path / "JPEGImages/a/x.png"
    )
    with pytest.raises(DatasetError, match="the folder holds labels of other classes; write to another folder"):
        VOCWriter(tmp_path, VOC_CATEGORIES)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (CategorySet([Category(1, "sky", False, (0, 0, 0))]), "expected categories with things, all are stuff"),
        (CategorySet([Category(i, str(i), True, (0, 0, 0)) for i in range(255)]), "1 to 254 classes, got 255"),
        (CategorySet([Category(1, "background", True, (0, 0, 0))]), "and no background"),
        (CategorySet([Category(1, "a\nb", True, (0, 0, 0))]), "each one line"),
    ],
)
def test_unsupported_categories_raise_a_dataset_error(tmp_path: Path, categories: CategorySet, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        VOCWriter(tmp_path, categories)


def test_invalid_arguments_raise_an_error_and_write_nothing(tmp_path: Path) -> None:
    segment_ids = np.ones((1, 1), dtype=np.int32)
    image = DatasetImage(1, "x.jpg", (1, 1))
    empty = PanopticSegmentation(np.zeros((0, 1), dtype=np.int32), ())
    writer = VOCWriter(tmp_path, CATEGORIES)
    for target, segmentation, message in (
        (
            image,
            PanopticSegmentation(segment_ids, (Segment(1, 9, True, 1),)),
            r"category ids of the dataset, got \[9\]",
        ),
        (image, PanopticSegmentation(segment_ids, ()), "ids of segments only, got 1"),
        (
            DatasetImage(1, "x.jpg", (1, 2)),
            PanopticSegmentation(segment_ids, (Segment(1, 1, True, 1),)),
            "image's size",
        ),
        (DatasetImage(1, "x.jpg", (0, 1)), empty, "must not be empty"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.add(target, segmentation)
    with pytest.raises(ValueError, match="border_px must be an integer of at least 0, got -1"):
        VOCWriter(tmp_path, CATEGORIES, border_px=-1)
    assert files_below(tmp_path) == set()


def test_a_failed_write_leaves_neither_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    writer, save, paths = VOCWriter(tmp_path, CATEGORIES), Image.Image.save, []

    def save_once(image: Image.Image, path: Path, kind: str) -> None:
        paths.append(path)
        if len(paths) == 2:
            raise OSError(28, "No space left on device")
        save(image, path, kind)

    monkeypatch.setattr(Image.Image, "save", save_once)
    with pytest.raises(DatasetError, match="cannot be written: No space left"):
        writer.add(_image(segmentation.segment_ids), segmentation)
    assert files_below(tmp_path) == set()
    monkeypatch.undo()
    assert writer.add(_image(segmentation.segment_ids), segmentation) == []  # the name is free


def test_a_border_wider_than_the_image_covers_all_objects(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(
        np.array([[1, 2, 2]], dtype=np.int32), (Segment(1, 1, True, 1), Segment(2, 1, True, 2))
    )
    losses = _write(tmp_path, segmentation, CATEGORIES, border_px=10**12)
    assert losses == ["segment 1: the border covers it", "segment 2: the border covers it"]
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [[255, 255, 255]]


def test_overlaps_are_reported(tmp_path: Path) -> None:
    """The first mask occludes one pixel of the second."""
    ground_truth = PanopticSegmentation(
        np.array([[1, 1, 2]], dtype=np.int32), (Segment(1, 1, True, 2), Segment(2, 3, True, 1))
    )
    annotations = [{"segmentation": mask_to_rle(np.array([mask], bool))} for mask in ([1, 1, 0], [0, 1, 1])]
    writer = VOCWriter(tmp_path, CATEGORIES)
    losses = writer.add(_image(ground_truth.segment_ids), ground_truth, annotations)
    assert losses == ["annotations: 1 pixels under other masks cannot be held"]
    assert writer.add(_image(ground_truth.segment_ids, "y.jpg"), ground_truth, annotations[:1]) == []


@pytest.mark.parametrize("name", ["a.gif", "a.ppm", "a", "a.bmp", "a.JPEG", "a.Jpg"])
def test_images_of_any_suffix_are_read_back(tmp_path: Path, name: str) -> None:
    store_image(tmp_path / "from.png", (1, 2))
    (tmp_path / "in").mkdir()
    with Image.open(tmp_path / "from.png") as grey:
        grey.save(tmp_path / "in" / name, {".gif": "GIF", ".ppm": "PPM", ".bmp": "BMP"}.get(Path(name).suffix, "JPEG"))
    image, ground_truth = (
        DatasetImage(1, name, (1, 2)),
        PanopticSegmentation(np.ones((1, 2), np.int32), (Segment(1, 1, True, 2),)),
    )

    class OneImage(DatasetReader):
        images, categories, image_root, root = (image,), CATEGORIES, tmp_path / "in", tmp_path

        def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
            return ground_truth

    reader = OneImage()
    convert(reader, VOCWriter(tmp_path / "voc", CATEGORIES), copy_images=True)
    convert(reader, TwoChannelWriter(tmp_path / "two", CATEGORIES), copy_images=True)
    convert(reader, InstanceMapWriter(tmp_path / "maps", CATEGORIES), copy_images=True)
    two = tmp_path / "two"
    for written in (
        VOCReader(tmp_path / "voc"),
        TwoChannelReader(two / "masks", two / "images", two / "categories.json"),
        InstanceMapReader(tmp_path / "maps"),
    ):
        np.testing.assert_array_equal(written.read_image(written.images[0]), reader.read_image(image))
