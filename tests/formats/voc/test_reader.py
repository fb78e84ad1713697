from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats import png
from segkit.formats.base import DatasetImage
from segkit.formats.voc import VOCReader
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers.voc_tree import (
    CLASS_LABELS,
    IDS,
    OBJECT_LABELS,
    SEGMENTS,
    add_image,
    store_image,
    store_labels,
    store_set,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "VOC2012"
    add_image(tree, "2007_000032")
    add_image(tree, "2007_000039", [[15, 15]], [[1, 1]])
    store_set(tree, "2007_000032\n2007_000039\n")
    return tree


def _read_first(root: Path) -> PanopticSegmentation:
    reader = VOCReader(root)
    return reader.read_segmentation(reader.images[0])


def test_a_dataset_is_read(root: Path) -> None:
    reader = VOCReader(root)
    assert reader.images == (
        DatasetImage("2007_000032", "2007_000032.jpg", (3, 5)),
        DatasetImage("2007_000039", "2007_000039.jpg", (1, 2)),
    )
    assert [(c.category_id, c.name, c.isthing) for c in reader.categories.categories][::15] == [
        (0, "background", False),
        (15, "person", True),
    ]
    assert len(reader.categories) == 21
    assert reader.categories[15].color == (192, 128, 128)
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == IDS
    assert segmentation.segment_ids.dtype == np.int32
    assert segmentation.segments == SEGMENTS
    assert reader.read_segmentation(reader.images[1]).segments == (
        Segment(1, 15, True, 2),
    )  # no background, no segment
    assert reader.read_image(reader.images[0]).shape == (3, 5, 3)
    assert [(a["category_id"], a["bbox"], a["area"]) for a in reader.read_annotations(reader.images[0])] == [
        (15, [4, 1, 1, 2], 2),
        (8, [2, 1, 1, 1], 1),
        (15, [0, 2, 1, 1], 1),
    ]


@pytest.mark.parametrize("blank_line", ["", "  \t"])
def test_image_sets_may_have_blank_lines_other_line_ends_and_trailing_spaces(root: Path, blank_line: str) -> None:
    store_set(root, f"\ufeff2007_000039  \r\n{blank_line}\r\n\r\n 2007_000032\t", "val")
    assert [image.image_id for image in VOCReader(root, "val").images] == ["2007_000039", "2007_000032"]


def test_images_may_be_in_folders_and_have_other_suffixes(root: Path) -> None:
    add_image(root, "2007_000032")
    add_image(root, "zurich/a.b")
    store_image(root / "JPEGImages/zurich/a.b.png", (3, 5))
    (root / "JPEGImages/zurich/a.b.jpg").unlink()
    store_set(root, "zurich/a.b")
    assert VOCReader(root).images == (DatasetImage("zurich/a.b", "zurich/a.b.png", (3, 5)),)


def test_the_size_of_an_image_follows_its_exif_orientation(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a rotation by 90 degrees: the file is 2 pixels high and 1 wide
    Image.new("RGB", (1, 2)).save(root / "JPEGImages/2007_000039.jpg", exif=exif)
    reader = VOCReader(root)
    assert reader.images[1].size_hw == (1, 2)
    assert reader.read_image(reader.images[1]).shape == (1, 2, 3)


def test_a_greyscale_png_holds_the_same_labels(root: Path) -> None:
    for folder, labels in (("SegmentationClass", CLASS_LABELS), ("SegmentationObject", OBJECT_LABELS)):
        png.write(root / folder / "2007_000032.png", np.array(labels, dtype=np.uint8))
    assert _read_first(root).segments == SEGMENTS


def test_void_of_either_png_is_void(root: Path) -> None:
    # labelme2voc writes void as class 255 of object 0; the third pixel is a void object of a class.
    add_image(root, "2007_000032", [[255, 255, 8, 8, 0]], [[0, 5, 255, 5, 255]])
    segmentation = _read_first(root)
    assert segmentation.segment_ids.tolist() == [[0, 0, 0, 5, 0]]
    assert segmentation.segments == (Segment(5, 8, True, 1),)


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
def test_inconsistent_pngs_raise_a_dataset_error(
    root: Path, class_labels: list, object_labels: list, message: str
) -> None:
    add_image(root, "2007_000032", class_labels, object_labels)
    both_pngs = r"SegmentationClass.2007_000032\.png and .*SegmentationObject.2007_000032\.png: .*"
    with pytest.raises(DatasetError, match=both_pngs + message):
        _read_first(root)


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
def test_pngs_of_different_sizes_raise_a_dataset_error(root: Path, folder: str) -> None:
    store_labels(root / folder / "2007_000032.png", [[0, 0]])
    both_pngs = r"SegmentationClass.2007_000032\.png and .*SegmentationObject.2007_000032\.png: .*"
    with pytest.raises(
        DatasetError,
        match=both_pngs + r"expected 3 x 5 .* as .*2007_000032\.jpg has, got (1 x 2 and 3 x 5|3 x 5 and 1 x 2)",
    ):
        VOCReader(root)


def test_an_image_of_another_size_raises_a_dataset_error(root: Path) -> None:
    store_image(root / "JPEGImages/2007_000039.jpg", (2, 1))
    with pytest.raises(DatasetError, match=r"expected 2 x 1 pixels .* as .*2007_000039\.jpg has, got 1 x 2 and 1 x 2"):
        VOCReader(root)


def test_a_png_whose_size_changes_later_raises_a_dataset_error(root: Path) -> None:
    reader = VOCReader(root)
    store_labels(root / "SegmentationObject/2007_000032.png", [[0, 0]])
    with pytest.raises(DatasetError, match=r"SegmentationObject.2007_000032\.png: expected 3 x 5 pixels"):
        reader.read_segmentation(reader.images[0])


def test_pngs_that_are_no_label_maps_raise_a_dataset_error(root: Path) -> None:
    path = root / "SegmentationObject/2007_000032.png"
    png.write(path, np.array(OBJECT_LABELS, dtype=np.uint16) + np.uint16(256))
    with pytest.raises(DatasetError, match=r"SegmentationObject.*expected labels in 0\.\.255, got 511"):
        _read_first(root)
    png.write(path, np.zeros((3, 5, 3), dtype=np.uint8))
    with pytest.raises(
        DatasetError, match="expected a greyscale or palette PNG whose values are labels, got 8-bit RGB"
    ):
        _read_first(root)
    store_labels(path, OBJECT_LABELS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"2007_000032\.png: the PNG cannot be decoded"):
        _read_first(root)


def test_a_decompression_bomb_raises_a_dataset_error(root: Path) -> None:
    # Headers that claim 100000 x 100000 pixels; the rest is the small file.
    header = (100_000).to_bytes(4, "big") * 2
    for folder in ("SegmentationClass", "SegmentationObject"):
        path = root / folder / "2007_000039.png"
        content = path.read_bytes()
        path.write_bytes(content[:16] + header + content[24:])
    with pytest.raises(DatasetError, match="got 100000 x 100000 and 100000 x 100000"):
        VOCReader(root)
    (root / "JPEGImages/2007_000039.jpg").unlink()
    content = (root / "SegmentationClass/2007_000039.png").read_bytes()
    (root / "JPEGImages/2007_000039.png").write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"JPEGImages.2007_000039\.png: expected an image, got none that can be opened"
    ):
        VOCReader(root)


@pytest.mark.parametrize(
    ("folder", "suffix"), [("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")]
)
def test_missing_files_raise_a_dataset_error(root: Path, folder: str, suffix: str) -> None:
    path = root / folder / f"2007_000039.{suffix}"
    path.unlink()
    remedy = r"add the files, or drop the ids from .*train\.txt"
    message = rf"{folder}.2007_000039\.{suffix}: the .* is missing \(1 of 2 are\); {remedy}"
    with pytest.raises(DatasetError, match=message):
        VOCReader(root)
    path.symlink_to(path)  # a loop
    with pytest.raises(DatasetError, match=message):
        VOCReader(root)


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass", "SegmentationObject"])
def test_missing_folders_raise_a_dataset_error(root: Path, folder: str) -> None:
    os.rename(root / folder, root / "elsewhere")
    remedy = "if there are no objects, say `objects: null`" if folder == "SegmentationObject" else "give the folder"
    with pytest.raises(DatasetError, match=f"{folder}: no such folder; {remedy}"):
        VOCReader(root)


@pytest.mark.parametrize("image_id", ["../2007_000032", "/etc/passwd", "a/../../b", "..\\x", "C:x", "x\0"])
def test_image_ids_and_splits_outside_the_folder_raise_a_dataset_error(root: Path, image_id: str) -> None:
    store_set(root, f"2007_000032\n{image_id}\n")
    with pytest.raises(DatasetError, match=r"train\.txt: expected `image id` to be a path inside its folder"):
        VOCReader(root)
    with pytest.raises(DatasetError, match=r"Segmentation: expected `split` to be a path inside its folder"):
        VOCReader(root, split=image_id)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.txt: expected one image id per line, got none"),
        (b" \r\n\n", r"train\.txt: expected one image id per line, got none"),
        (b"2007_000032\n2007_000032 \n", r"train\.txt: expected distinct image ids, got '2007_000032' twice"),
        (b"2007_000032.jpg\n", r"JPEGImages.2007_000032\.jpg\.jpg: the image is missing \(1 of 1 are\)"),
        (b"2007_000032  1\n", r"JPEGImages.*: the image is missing \(1 of 1 are\)"),
        (b"\xff\xfe\x80\n", r"JPEGImages.*: the image is missing \(1 of 1 are\)"),
        ("x" * 5000, r"JPEGImages.*: the image is missing \(1 of 1 are\)"),
    ],
)
def test_invalid_image_sets_raise_a_dataset_error(root: Path, content: str | bytes, message: str) -> None:
    store_set(root, content)
    with pytest.raises(DatasetError, match=message):
        VOCReader(root)


def test_a_missing_image_set_raises_a_dataset_error(root: Path) -> None:
    store_set(root, "x", "val")
    with pytest.raises(DatasetError, match=r"2012\.txt: no such image set"):
        VOCReader(root, 2012)
    with pytest.raises(DatasetError, match=r"test\.txt: no such image set; the sets are train, val"):
        VOCReader(root, "test")


def test_classes_by_option_and_by_file(root: Path) -> None:
    add_image(root, "2007_000032", [[0, 2]], [[0, 1]])
    store_set(root, "2007_000032")
    names = [(0, "background"), (1, "cell"), (2, "debris")]
    reader = VOCReader(root, classes=["cell", "debris"])
    assert [(c.category_id, c.name) for c in reader.categories.categories] == names
    assert reader.read_segmentation(reader.images[0]).segments == (Segment(1, 2, True, 1), Segment(255, 0, False, 1))
    (root / "class_names.txt").write_text("_background_\ncell\r\ndebris")  # labelme2voc ends the last line so
    assert VOCReader(root).categories == reader.categories
    (root / "class_names.txt").write_text("cell\ndebris\n")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected '_background_' in the first line, got 'cell'"):
        VOCReader(root)
    (root / "class_names.txt").write_text("")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected '_background_' in the first line, got ''"):
        VOCReader(root)
    (root / "class_names.txt").unlink()
    (root / "class_names.txt").symlink_to("moved.txt")
    with pytest.raises(DatasetError, match=r"class_names\.txt: expected a file, found nothing"):
        VOCReader(root)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes: expected 1 to 254 classes, got 0"),
        ([str(i) for i in range(255)], "classes: expected 1 to 254 classes, got 255"),
        (["cat", "cat"], "expected distinct names, and no background, got 'cat', 'cat'"),
        (["background", "cat"], "and no background, got 'background', 'cat'; leave the background out"),
        ("cat", "expected a list of class names, each one line, got 'cat'"),
        (["a\nb"], "each one line"),
        ([" "], "each one line"),
        ([7], "each one line"),
        (7, "expected a list of class names"),
    ],
)
def test_invalid_classes_raise_a_dataset_error(root: Path, classes: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        VOCReader(root, classes=classes)


def test_classes_without_objects_are_stuff(root: Path) -> None:
    # As the set that the Semantic Boundaries Dataset extends: no SegmentationObject, another folder of classes.
    os.rename(root / "SegmentationClass", root / "SegmentationClassAug")
    (root / "SegmentationObject/2007_000039.png").unlink()
    with pytest.raises(
        DatasetError, match=r"2007_000039\.png: the PNG of objects is missing .*; if there are no objects, say"
    ):
        VOCReader(root, labels="SegmentationClassAug")
    os.rename(root / "SegmentationObject", root / "elsewhere")
    reader = VOCReader(root, labels="SegmentationClassAug", objects=None)
    assert not reader.categories.things
    assert reader.categories.isthing_by_id.keys() == {*range(21)}
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[255, 0, 0, 0, 255], [255, 0, 8, 0, 15], [15, 0, 0, 0, 15]]
    assert segmentation.segments == (Segment(8, 8, False, 1), Segment(15, 15, False, 3), Segment(255, 0, False, 3))
    assert reader.read_annotations(reader.images[0]) == []
    store_labels(root / "SegmentationClassAug/2007_000032.png", np.full((3, 5), 21))
    with pytest.raises(DatasetError, match=r"SegmentationClassAug.2007_000032\.png: expected class labels in 0\.\.20"):
        reader.read_segmentation(reader.images[0])


def test_all_issues_are_reported_and_valid_images_stay(root: Path) -> None:
    for image_id in ("alone", "unmasked", "objectless", "small", "torn", "torn_png", "last"):
        add_image(root, image_id)
    (root / "JPEGImages/alone.jpg").unlink()
    (root / "SegmentationClass/unmasked.png").unlink()
    (root / "SegmentationObject/unmasked.png").unlink()
    (root / "SegmentationObject/objectless.png").unlink()
    store_labels(root / "SegmentationObject/small.png", [[0]])
    (root / "JPEGImages/torn.jpg").write_bytes(b"torn")
    (root / "SegmentationClass/torn_png.png").write_bytes(b"torn")
    faulty = ["alone", "../out", "unmasked", "2007_000032", "objectless", "small", "torn", "torn_png", "nothing"]
    store_set(root, "\n".join(["2007_000032", *faulty, "last"]))
    issues: list[tuple[str, str]] = []

    def on_issue(code: str, error: DatasetError) -> None:
        issues.append((code, str(error).removeprefix(f"{root}/").split(": ")[0]))

    reader = VOCReader(root, on_issue=on_issue)
    assert issues == [
        ("name-outside", "ImageSets/Segmentation/train.txt"),
        ("image-id-twice", "ImageSets/Segmentation/train.txt"),
        ("image-missing", "JPEGImages/alone.jpg"),
        ("image-missing", "JPEGImages/nothing.jpg"),
        ("png-missing", "SegmentationClass/unmasked.png"),
        ("png-missing", "SegmentationClass/nothing.png"),
        ("png-missing", "SegmentationObject/unmasked.png"),
        ("png-missing", "SegmentationObject/objectless.png"),
        ("png-missing", "SegmentationObject/nothing.png"),
        ("size-differs", f"SegmentationClass/small.png and {root}/SegmentationObject/small.png"),
        ("image-unreadable", "JPEGImages/torn.jpg"),
        ("png-unreadable", "SegmentationClass/torn_png.png"),
    ]
    assert [image.image_id for image in reader.images] == ["2007_000032", "last"]
    for image in reader.images:
        assert reader.read_segmentation(image).segments == SEGMENTS
        assert reader.read_image(image).shape == (3, 5, 3)
    first_issues, issues = issues, []
    VOCReader(root, on_issue=on_issue)
    assert issues == first_issues


def test_an_image_set_without_valid_images_is_empty(root: Path) -> None:
    store_set(root, "nothing\nnone")
    assert VOCReader(root, on_issue=lambda code, error: None).images == ()


@pytest.mark.parametrize("folder", ["../..", "/tmp", "", 3])
def test_label_folders_outside_the_root_raise_a_dataset_error(root: Path, folder: Any) -> None:
    for key in ("labels", "objects"):
        with pytest.raises(DatasetError, match=f"expected `{key}` to be a path inside its folder"):
            VOCReader(root, **{key: folder})


def test_folder_names_that_are_too_long_raise_a_dataset_error(root: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        VOCReader(root, labels="x" * 5000)
    with pytest.raises(DatasetError, match="no such folder"):
        VOCReader(root / ("x" * 5000))
