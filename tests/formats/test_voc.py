from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats import png, voc
from segkit.formats.source import SourceImage
from segkit.formats.voc import VOCSource, VOCWriter
from segkit.structures import Category, CategorySet, DatasetError, PanopticSegmentation, Segment

from .samples import CATEGORIES, files_below

# A cat (8) and two persons (15) of labels 3, 1 and 4 (2 is no object here: objects are numbered over all annotations,
# masked or not), void around the cat.
CLASS_LABELS = [[0, 255, 255, 255, 0], [0, 255, 8, 255, 15], [15, 255, 255, 255, 15]]
OBJECT_LABELS = [[0, 255, 255, 255, 0], [0, 255, 3, 255, 1], [4, 255, 255, 255, 1]]
IDS = [[255, 0, 0, 0, 255], [255, 0, 3, 0, 1], [4, 0, 0, 0, 1]]
SEGMENTS = (
    Segment(1, 15, True, 2),
    Segment(3, 8, True, 1),
    Segment(4, 15, True, 1),
    Segment(255, 0, False, 3),
)
VOC_CATEGORIES = CategorySet(
    [
        Category(0, "background", False, (0, 0, 0)),
        *(Category(i, n, True, (0, 0, 0)) for i, n in enumerate(voc.NAMES, 1)),
    ]
)


def _labels(path: Path, labels: object) -> None:
    """A palette PNG as Pillow makes it, without the code under test."""
    image = Image.fromarray(np.array(labels, dtype=np.uint8))
    image.putpalette([(i * 7) % 256 for i in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _picture(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_hw[::-1], (200, 30, 30)).save(path)


def _add(root: Path, image_id: str, class_labels: object = CLASS_LABELS, object_labels: object = OBJECT_LABELS) -> None:
    _labels(root / f"SegmentationClass/{image_id}.png", class_labels)
    _labels(root / f"SegmentationObject/{image_id}.png", object_labels)
    _picture(root / f"JPEGImages/{image_id}.jpg", np.shape(class_labels))


def _set(root: Path, content: str | bytes, split: str = "train") -> None:
    path = root / f"ImageSets/Segmentation/{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "VOC2012"
    _add(made, "2007_000032")
    _add(made, "2007_000039", [[15, 15]], [[1, 1]])
    _set(made, "2007_000032\n2007_000039\n")
    return made


def _one(root: Path) -> PanopticSegmentation:
    source = VOCSource(root)
    return source.segmentation(source.images[0])


def test_color_map_has_the_known_values() -> None:
    # VOClabelcolormap.m's table, as the development kit prints it.
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    colors = voc.color_map()
    assert {label: tuple(colors[label].tolist()) for label in known} == known
    assert colors.dtype == np.uint8
    assert len({tuple(color) for color in colors.tolist()}) == 256


def test_classes_are_detectron2s() -> None:
    pascal_voc = pytest.importorskip("detectron2.data.datasets.pascal_voc", reason="Detectron2 is not installed")
    assert voc.NAMES == pascal_voc.CLASS_NAMES


def test_read(root: Path) -> None:
    source = VOCSource(root)
    assert source.images == (
        SourceImage("2007_000032", "2007_000032.jpg", (3, 5)),
        SourceImage("2007_000039", "2007_000039.jpg", (1, 2)),
    )
    assert [(c.category_id, c.name, c.isthing) for c in source.categories.categories][::15] == [
        (0, "background", False),
        (15, "person", True),
    ]
    assert len(source.categories) == 21
    assert source.categories[15].color == (192, 128, 128)
    got = source.segmentation(source.images[0])
    assert got.segment_ids.tolist() == IDS
    assert got.segment_ids.dtype == np.int32
    assert got.segments == SEGMENTS
    assert source.segmentation(source.images[1]).segments == (Segment(1, 15, True, 2),)  # no background, no segment
    assert source.picture(source.images[0]).shape == (3, 5, 3)
    assert [(a["category_id"], a["bbox"], a["area"]) for a in source.annotations(source.images[0])] == [
        (15, [4, 1, 1, 2], 2),
        (8, [2, 1, 1, 1], 1),
        (15, [0, 2, 1, 1], 1),
    ]


@pytest.mark.parametrize("blank_line", ["", "  \t"])
def test_image_sets_may_have_blank_lines_other_line_ends_and_trailing_spaces(root: Path, blank_line: str) -> None:
    _set(root, f"\ufeff2007_000039  \r\n{blank_line}\r\n\r\n 2007_000032\t", "val")
    assert [image.image_id for image in VOCSource(root, "val").images] == ["2007_000039", "2007_000032"]


def test_pictures_may_lie_in_folders_and_have_other_suffixes(root: Path) -> None:
    _add(root, "2007_000032")
    _add(root, "zurich/a.b")
    _picture(root / "JPEGImages/zurich/a.b.png", (3, 5))
    (root / "JPEGImages/zurich/a.b.jpg").unlink()
    _set(root, "zurich/a.b")
    assert VOCSource(root).images == (SourceImage("zurich/a.b", "zurich/a.b.png", (3, 5)),)


def test_a_picture_that_exif_turns_is_measured_turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 2 high and 1 wide in the file
    Image.new("RGB", (1, 2)).save(root / "JPEGImages/2007_000039.jpg", exif=exif)
    source = VOCSource(root)
    assert source.images[1].size_hw == (1, 2)
    assert source.picture(source.images[1]).shape == (1, 2, 3)


def test_a_greyscale_png_holds_the_same_labels(root: Path) -> None:
    for folder, labels in (("SegmentationClass", CLASS_LABELS), ("SegmentationObject", OBJECT_LABELS)):
        png.write(root / folder / "2007_000032.png", np.array(labels, dtype=np.uint8))
    assert _one(root).segments == SEGMENTS


def test_void_of_either_png_is_void(root: Path) -> None:
    # labelme2voc writes void as class 255 of object 0; the third pixel is a void object of a class.
    _add(root, "2007_000032", [[255, 255, 8, 8, 0]], [[0, 5, 255, 5, 255]])
    got = _one(root)
    assert got.segment_ids.tolist() == [[0, 0, 0, 5, 0]]
    assert got.segments == (Segment(5, 8, True, 1),)


@pytest.mark.parametrize(
    ("class_labels", "object_labels", "message"),
    [
        ([[8, 15]], [[1, 1]], r"expected one class of object 1, got 8 \(cat\) and 15 \(person\)"),
        ([[8, 0]], [[2, 2]], r"expected one class of object 2, got 0 \(background\) and 8 \(cat\)"),
        ([[0, 0]], [[254, 0]], r"expected one class of object 254, got 0 \(background\)"),
        ([[15, 15]], [[0, 1]], r"an object for every pixel of a class, got none for 1 pixels of class 15 \(person\)"),
        ([[21, 254]], [[1, 255]], r"expected class labels in 0\.\.20 or 255, got 21, 254; give the dataset's own"),
    ],
)
def test_pngs_that_contradict_each_other(root: Path, class_labels: list, object_labels: list, message: str) -> None:
    _add(root, "2007_000032", class_labels, object_labels)
    both = r"SegmentationClass.2007_000032\.png and .*SegmentationObject.2007_000032\.png: .*"
    with pytest.raises(DatasetError, match=both + message):
        _one(root)


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
def test_sizes_that_differ(root: Path, folder: str) -> None:
    _labels(root / folder / "2007_000032.png", [[0, 0]])
    both = r"SegmentationClass.2007_000032\.png and .*SegmentationObject.2007_000032\.png: .*"
    with pytest.raises(
        DatasetError, match=both + r"expected 3 x 5 .* as .*2007_000032\.jpg has, got (1 x 2 and 3 x 5|3 x 5 and 1 x 2)"
    ):
        VOCSource(root)


def test_a_picture_of_another_size(root: Path) -> None:
    _picture(root / "JPEGImages/2007_000039.jpg", (2, 1))
    with pytest.raises(DatasetError, match=r"expected 2 x 1 pixels .* as .*2007_000039\.jpg has, got 1 x 2 and 1 x 2"):
        VOCSource(root)


def test_a_png_that_changes_later(root: Path) -> None:
    source = VOCSource(root)
    _labels(root / "SegmentationObject/2007_000032.png", [[0, 0]])
    with pytest.raises(DatasetError, match=r"SegmentationObject.2007_000032\.png: expected 3 x 5 pixels"):
        source.segmentation(source.images[0])


def test_pngs_that_are_no_label_maps(root: Path) -> None:
    path = root / "SegmentationObject/2007_000032.png"
    png.write(path, np.array(OBJECT_LABELS, dtype=np.uint16) + np.uint16(256))
    with pytest.raises(DatasetError, match=r"SegmentationObject.*expected labels in 0\.\.255, got 511"):
        _one(root)
    png.write(path, np.zeros((3, 5, 3), dtype=np.uint8))
    with pytest.raises(
        DatasetError, match="expected a greyscale or palette PNG whose values are labels, got 8-bit RGB"
    ):
        _one(root)
    _labels(path, OBJECT_LABELS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"2007_000032\.png: the PNG cannot be decoded"):
        _one(root)


def test_a_decompression_bomb(root: Path) -> None:
    # Headers that claim 100000 x 100000 pixels; the rest is the small file's.
    header = (100_000).to_bytes(4, "big") * 2
    for folder in ("SegmentationClass", "SegmentationObject"):
        path = root / folder / "2007_000039.png"
        content = path.read_bytes()
        path.write_bytes(content[:16] + header + content[24:])
    with pytest.raises(DatasetError, match="got 100000 x 100000 and 100000 x 100000"):
        VOCSource(root)
    (root / "JPEGImages/2007_000039.jpg").unlink()
    content = (root / "SegmentationClass/2007_000039.png").read_bytes()
    (root / "JPEGImages/2007_000039.png").write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"JPEGImages.2007_000039\.png: expected an image, got none that can be opened"
    ):
        VOCSource(root)


@pytest.mark.parametrize(
    ("folder", "suffix"), [("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")]
)
def test_files_that_are_missing(root: Path, folder: str, suffix: str) -> None:
    path = root / folder / f"2007_000039.{suffix}"
    path.unlink()
    message = rf"2007_000039\.{suffix}: 1 of 2 images of .*train\.txt have no file in {folder}: '2007_000039'; add the"
    with pytest.raises(DatasetError, match=message):
        VOCSource(root)
    path.symlink_to(path)  # a loop
    with pytest.raises(DatasetError, match=message):
        VOCSource(root)


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass", "SegmentationObject"])
def test_folders_that_are_missing(root: Path, folder: str) -> None:
    os.rename(root / folder, root / "elsewhere")
    with pytest.raises(DatasetError, match=f"{folder}: no such folder; give the folder that holds JPEGImages"):
        VOCSource(root)


@pytest.mark.parametrize("image_id", ["../2007_000032", "/etc/passwd", "a/../../b", "..\\x", "C:x", "x\0"])
def test_ids_that_climb_out(root: Path, image_id: str) -> None:
    _set(root, f"2007_000032\n{image_id}\n")
    with pytest.raises(DatasetError, match=r"train\.txt: expected `image id` to be a path inside its folder"):
        VOCSource(root)
    with pytest.raises(DatasetError, match=r"Segmentation: expected `split` to be a path inside its folder"):
        VOCSource(root, split=image_id)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.txt: expected an image id a line, got none"),
        (b" \r\n\n", r"train\.txt: expected an image id a line, got none"),
        (b"2007_000032\n2007_000032 \n", r"train\.txt: expected distinct image ids, got '2007_000032' twice"),
        (b"2007_000032.jpg\n", "1 of 1 images .* have no file in JPEGImages: '2007_000032.jpg'"),
        (b"2007_000032  1\n", "1 of 1 images .* have no file in JPEGImages"),
        (b"\xff\xfe\x80\n", "1 of 1 images .* have no file in JPEGImages"),
        ("x" * 5000, "1 of 1 images .* have no file in JPEGImages"),
    ],
)
def test_image_sets_that_are_none(root: Path, content: str | bytes, message: str) -> None:
    _set(root, content)
    with pytest.raises(DatasetError, match=message):
        VOCSource(root)


def test_a_set_that_is_not_there(root: Path) -> None:
    _set(root, "x", "val")
    with pytest.raises(DatasetError, match=r"2012\.txt: no such image set"):
        VOCSource(root, 2012)
    with pytest.raises(DatasetError, match=r"test\.txt: no such image set; the sets are train, val"):
        VOCSource(root, "test")


def test_classes_by_option_and_by_file(root: Path) -> None:
    _add(root, "2007_000032", [[0, 2]], [[0, 1]])
    _set(root, "2007_000032")
    names = [(0, "background"), (1, "cell"), (2, "debris")]
    source = VOCSource(root, classes=["cell", "debris"])
    assert [(c.category_id, c.name) for c in source.categories.categories] == names
    assert source.segmentation(source.images[0]).segments == (Segment(1, 2, True, 1), Segment(255, 0, False, 1))
    (root / "class_names.txt").write_text("_background_\ncell\r\ndebris")  # labelme2voc ends the last line so
    assert VOCSource(root).categories == source.categories
    (root / "class_names.txt").write_text("cell\ndebris\n")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected '_background_' in the first line, got 'cell'"):
        VOCSource(root)
    (root / "class_names.txt").write_text("")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected '_background_' in the first line, got ''"):
        VOCSource(root)
    (root / "class_names.txt").unlink()
    (root / "class_names.txt").symlink_to("moved.txt")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected a file, found nothing"):
        VOCSource(root)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes: expected 1 to 254 classes, got 0"),
        ([str(i) for i in range(255)], "classes: expected 1 to 254 classes, got 255"),
        (["cat", "cat"], "expected distinct names, and no background, got 'cat', 'cat'"),
        (["background", "cat"], "and no background, got 'background', 'cat'; the background is label 0"),
        ("cat", "expected a list of class names, each one line, got 'cat'"),
        (["a\nb"], "each one line"),
        ([" "], "each one line"),
        ([7], "each one line"),
        (7, "expected a list of class names"),
    ],
)
def test_classes_that_are_none(root: Path, classes: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        VOCSource(root, classes=classes)


def _image(segment_ids: np.ndarray, name: str = "x.jpg") -> SourceImage:
    return SourceImage(1, name, segment_ids.shape)


def _written(root: Path, segmentation: PanopticSegmentation, categories: CategorySet, **options: int) -> list[str]:
    with VOCWriter(root, categories, **options) as writer:
        return writer.add(_image(segmentation.segment_ids), segmentation)


def _pixels(path: Path) -> list:
    return np.asarray(Image.open(path)).tolist()


def test_write(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.array(IDS, dtype=np.int32), SEGMENTS)
    with VOCWriter(tmp_path, VOC_CATEGORIES, "val") as writer:
        for name in ("b.jpg", "aachen/a.b.png"):
            assert writer.add(_image(segmentation.segment_ids, name), segmentation) == []
    for name in ("b", "aachen/a.b"):
        assert _pixels(tmp_path / f"SegmentationClass/{name}.png") == CLASS_LABELS
        assert _pixels(tmp_path / f"SegmentationObject/{name}.png") == OBJECT_LABELS
        for folder in ("SegmentationClass", "SegmentationObject"):
            image = Image.open(tmp_path / folder / f"{name}.png")
            assert image.mode == "P"
            assert image.getpalette() == voc.color_map().ravel().tolist()
    assert (tmp_path / "ImageSets/Segmentation/val.txt").read_bytes() == b"b\naachen/a.b\n"
    assert (tmp_path / "class_names.txt").read_text().split() == ["_background_", *voc.NAMES]


def test_other_ids_are_numbered_and_categories_too(tmp_path: Path) -> None:
    ids = np.array([[300, 20, 0, 7]], dtype=np.int32)
    segments = (Segment(300, 3, True, 1), Segment(20, 1, True, 1), Segment(7, 3, True, 1))
    assert _written(tmp_path, PanopticSegmentation(ids, segments), CATEGORIES) == []
    # person (1) and cat (3) are the first two things: labels 1 and 2.
    assert _pixels(tmp_path / "SegmentationClass/x.png") == [[2, 1, 255, 2]]
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [[1, 2, 255, 3]]
    assert (tmp_path / "class_names.txt").read_text() == "_background_\nperson\ncat\n"


def test_what_cannot_be_held_is_told(tmp_path: Path) -> None:
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
    assert _written(tmp_path, PanopticSegmentation(ids, segments), categories) == [
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
    lost = _written(tmp_path, PanopticSegmentation(ids, segments), CATEGORIES)
    assert lost == [f"segment {i}: an image has at most 254 objects, its pixels are void" for i in (5, 256)]
    labels = np.array(_pixels(tmp_path / "SegmentationObject/x.png"))[0]
    assert labels[[8, 9, 510, 511]].tolist() == [255] * 4
    # 255 is the 254th of those that are left, so that the labels are numbered.
    assert labels[[0, 7, 10, 509]].tolist() == [1, 4, 5, 254]


def test_a_border_is_drawn_where_it_is_asked_for(tmp_path: Path) -> None:
    ids = np.array([[9, 9, 9, 9, 9, 9, 9]] * 2 + [[9, 9, 9, 1, 1, 1, 1]] * 2 + [[2, 9, 9, 1, 1, 1, 1]], dtype=np.int32)
    segments = (Segment(1, 15, True, 12), Segment(2, 15, True, 1), Segment(9, 0, False, 22))
    lost = _written(tmp_path, PanopticSegmentation(ids, segments), VOC_CATEGORIES, border_px=1)
    # Within one row and column of another label: rows 1 and 2 and columns 2 and 3 along object 1, and object 2's all.
    assert _pixels(tmp_path / "SegmentationObject/x.png") == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 255, 255, 255, 255, 255],
        [0, 0, 255, 255, 255, 255, 255],
        [255, 255, 255, 255, 1, 1, 1],
        [255, 255, 255, 255, 1, 1, 1],
    ]
    assert _pixels(tmp_path / "SegmentationClass/x.png")[4] == [255, 255, 255, 255, 15, 15, 15]
    assert lost == ["segment 2: the border covers it"]


@st.composite
def _label_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sound PNGs: every object has one class."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    objects = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3, 100, 254, 255])))
    class_of = np.array(draw(st.lists(st.integers(1, 20), min_size=256, max_size=256)), dtype=np.uint8)
    class_of[[0, 255]] = 0, 255
    return class_of[objects], objects


@settings(max_examples=60)
@given(_label_pairs())
def test_reading_and_writing_undo_each_other(
    tmp_path_factory: pytest.TempPathFactory, labels: tuple[np.ndarray, np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("voc")
    _add(folder / "a", "x", *labels)
    _set(folder / "a", "x")
    source = VOCSource(folder / "a")
    first = source.segmentation(source.images[0])
    with VOCWriter(folder / "b", source.categories) as writer:
        assert writer.add(source.images[0], first) == []
    for name, values in zip(("SegmentationClass", "SegmentationObject"), labels, strict=True):
        assert _pixels(folder / "b" / name / "x.png") == values.tolist()
    _picture(folder / "b/JPEGImages/x.jpg", labels[0].shape)
    again = VOCSource(folder / "b")
    assert again.categories == source.categories
    second = again.segmentation(again.images[0])
    np.testing.assert_array_equal(first.segment_ids, second.segment_ids)
    assert first.segments == second.segments


@settings(max_examples=60)
@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 6)),
    st.permutations([7, 300, 255, 70000, 2, 9]),
    st.lists(st.sampled_from([1, 3, 0]), min_size=6, max_size=6),
)
def test_any_segmentation_of_things_comes_back(
    tmp_path_factory: pytest.TempPathFactory, places: np.ndarray, segment_ids: list[int], category_ids: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("voc")
    ids = np.array([0, *segment_ids], dtype=np.int32)[places]
    categories = CategorySet([Category(0, "background", False, (0, 0, 0)), *CATEGORIES.categories])
    segments = tuple(
        Segment(i, c, categories.isthing_of[c], int((ids == i).sum()))
        for i, c in zip(segment_ids, category_ids, strict=True)
        if (ids == i).any()
    )
    lost = _written(folder, PanopticSegmentation(ids, segments), categories)
    stuff = [s.segment_id for s in segments if not s.isthing]
    assert [line.split(":")[0] for line in lost] == [f"segment {i}" for i in stuff[1:]]
    _picture(folder / "JPEGImages/x.jpg", ids.shape)
    source = VOCSource(folder)
    got = source.segmentation(source.images[0])
    masks = {((got.segment_ids == s.segment_id).tobytes(), source.categories[s.category_id].name) for s in got.segments}
    expected = {((ids == s.segment_id).tobytes(), categories[s.category_id].name) for s in segments if s.isthing}
    if stuff:
        expected.add((np.isin(ids, stuff).tobytes(), "background"))
    assert masks == expected
    assert {s.area_px for s in got.segments} == {int((got.segment_ids == s.segment_id).sum()) for s in got.segments}


def test_an_exception_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.array(IDS, dtype=np.int32), SEGMENTS)
    _set(tmp_path, "before\n")

    def interrupted() -> None:
        with VOCWriter(tmp_path, VOC_CATEGORIES) as writer:
            writer.add(_image(segmentation.segment_ids), segmentation)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "ImageSets/Segmentation/train.txt").read_text() == "before\n"
    assert not (tmp_path / "class_names.txt").exists()


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "a\\..\\x.jpg", "", "a/"])
def test_file_names_that_climb_out(tmp_path: Path, name: str) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    with pytest.raises(DatasetError, match="expected `file_name` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES).add(_image(segmentation.segment_ids, name), segmentation)
    with pytest.raises(DatasetError, match="expected `file_name` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES).picture_path(_image(segmentation.segment_ids, name))
    with pytest.raises(DatasetError, match="expected `split` to be a path inside"):
        VOCWriter(tmp_path / "out", CATEGORIES, split=name)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", ["a\nb.jpg", " a.jpg", "a .jpg", "a\rb.jpg", "\ud800.jpg"])
def test_file_names_that_are_no_line(tmp_path: Path, name: str) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    with pytest.raises(DatasetError, match="image 1: expected a file_name that can be a line of an image set"):
        VOCWriter(tmp_path, CATEGORIES).add(_image(segmentation.segment_ids, name), segmentation)
    assert files_below(tmp_path) == set()


def test_two_images_of_one_name(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    writer = VOCWriter(tmp_path, CATEGORIES)
    writer.add(_image(segmentation.segment_ids, "a/x.jpg"), segmentation)
    for name in ("a/x.png", "a//x.jpg", "./a/x.jpg"):
        with pytest.raises(DatasetError, match="would take the place of another image's; rename"):
            writer.add(_image(segmentation.segment_ids, name), segmentation)
    writer.add(_image(segmentation.segment_ids, "x.jpg"), segmentation)


def test_writing_into_labels_of_other_classes(tmp_path: Path) -> None:
    segmentation = PanopticSegmentation(np.ones((1, 1), dtype=np.int32), (Segment(1, 1, True, 1),))
    _written(tmp_path, segmentation, CATEGORIES)
    assert VOCWriter(tmp_path, CATEGORIES, "val").picture_path(_image(np.ones((1, 1)), "a/x.png")) == (
        tmp_path / "JPEGImages/a/x.png"
    )
    with pytest.raises(DatasetError, match="the folder holds labels of other classes; write to another folder"):
        VOCWriter(tmp_path, VOC_CATEGORIES)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (CategorySet([Category(1, "sky", False, (0, 0, 0))]), "categories: expected 1 to 254 classes, got 0"),
        (CategorySet([Category(i, str(i), True, (0, 0, 0)) for i in range(255)]), "1 to 254 classes, got 255"),
        (CategorySet([Category(1, "background", True, (0, 0, 0))]), "and no background"),
        (CategorySet([Category(1, "a\nb", True, (0, 0, 0))]), "each one line"),
    ],
)
def test_categories_that_cannot_be_held(tmp_path: Path, categories: CategorySet, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        VOCWriter(tmp_path, categories)


def test_misuse_writes_nothing(tmp_path: Path) -> None:
    one = np.ones((1, 1), dtype=np.int32)
    image = SourceImage(1, "x.jpg", (1, 1))
    empty = PanopticSegmentation(np.zeros((0, 1), dtype=np.int32), ())
    writer = VOCWriter(tmp_path, CATEGORIES)
    for at, segmentation, message in (
        (image, PanopticSegmentation(one, (Segment(1, 9, True, 1),)), r"category ids of the dataset, got \[9\]"),
        (image, PanopticSegmentation(one, ()), "ids of segments only, got 1"),
        (SourceImage(1, "x.jpg", (1, 2)), PanopticSegmentation(one, (Segment(1, 1, True, 1),)), "image's size"),
        (SourceImage(1, "x.jpg", (0, 1)), empty, "must not be empty"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.add(at, segmentation)
    with pytest.raises(ValueError, match="border_px must be at least 0, got -1"):
        VOCWriter(tmp_path, CATEGORIES, border_px=-1)
    assert files_below(tmp_path) == set()
