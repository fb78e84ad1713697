"""Semantic label maps, read and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats.base import DatasetImage
from segkit.formats.label_images import SemanticMapReader, SemanticMapWriter
from segkit.formats.registry import open_reader
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers import writer_samples
from tests.helpers.coco_samples import CATEGORIES, first_image
from tests.helpers.writer_samples import COVERED, GROUND_TRUTH, IMAGE, OVERLAP

NAMES = ["road", "car", "sky"]
# Two cars are one class; 255 is void.
MAP = np.array([[0, 0, 255], [1, 2, 1]], dtype=np.uint8)


def write_pair(root: Path, name: str = "a", labels: np.ndarray = MAP, classes: object = NAMES) -> Path:
    """Writes an image, its map and the classes; returns the path of the map."""
    for folder, pixels in (("images", np.zeros((*labels.shape, 3), dtype=np.uint8)), ("labels", labels)):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (root / "classes.json").write_text(json.dumps(classes))
    return path


def test_every_class_is_stuff_and_one_segment(tmp_path: Path) -> None:
    write_pair(tmp_path, "sub/a")
    reader = open_reader("semantic-maps", {"root": str(tmp_path)})
    (image,) = reader.images
    assert image == DatasetImage("sub/a", "sub/a.png", (2, 3))
    assert [(c.category_id, c.name, c.isthing) for c in reader.categories.categories] == [
        (0, "road", False),
        (1, "car", False),
        (2, "sky", False),
    ]
    segmentation = reader.read_segmentation(image)
    # segment_id is the label + 1, void 0.
    assert segmentation.segment_ids.tolist() == [[1, 1, 0], [2, 3, 2]]
    assert segmentation.segments == (Segment(1, 0, False, 2), Segment(2, 1, False, 2), Segment(3, 2, False, 1))
    assert reader.read_annotations(image) == []
    assert reader.read_image(image).shape == (2, 3, 3)


def test_values_of_masks_can_be_named(tmp_path: Path) -> None:
    """A mask of 0 and 255: 255 is void by default, and then no pixel is of the class."""
    mask = np.array([[0, 255, 255], [0, 0, 7]], dtype=np.uint8)
    write_pair(tmp_path, labels=mask)
    for keys in ((0, 255, 7), ("0", "255", "7")):  # as text in the options of a record
        classes = dict(zip(keys, ("background", "lesion", "edge"), strict=True))
        reader = open_reader("semantic-maps", {"root": str(tmp_path), "classes": classes})
        (image,) = reader.images
        assert reader.read_segmentation(image).segments == (
            Segment(1, 0, False, 3),
            Segment(8, 7, False, 1),
            Segment(256, 255, False, 2),
        )
        assert (reader.skipped, reader.void_remedy) == ((), "")
    without_lesion = {0: "background", 7: "edge"}
    reader = open_reader("semantic-maps", {"root": str(tmp_path), "classes": without_lesion})
    assert np.count_nonzero(reader.read_segmentation(reader.images[0]).segment_ids == 0) == 2
    assert "name the labels: --set 'classes={0: background, 255: NAME}'" in reader.void_remedy
    invalid: list[dict] = [{"a": "b"}, {-1: "b"}, {0: "a", "00": "b"}, {}, {0: 7}]
    for labels in invalid:
        with pytest.raises(ConfigError, match="classes: expected"):
            open_reader("semantic-maps", {"root": str(tmp_path), "classes": labels})


def test_classes_and_the_void_label_can_be_given(tmp_path: Path) -> None:
    write_pair(tmp_path, classes=["a class", "too few"])
    reader = SemanticMapReader(tmp_path, classes=[*NAMES, "void"], ignore=0)
    with pytest.raises(DatasetError, match=r"a\.png, image 'a': expected labels among 1, 2, 3, or 0 .*, got 255; name"):
        reader.read_segmentation(reader.images[0])
    reader = SemanticMapReader(tmp_path, classes=str(tmp_path / "classes.json"))
    with pytest.raises(DatasetError, match="expected labels among 0, 1, or 255 for void, got 2; name"):
        reader.read_segmentation(reader.images[0])
    # Ids as in Cityscapes. Things are read as stuff: a map does not separate objects.
    entries = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]
    write_pair(tmp_path, labels=np.array([[7, 26, 3]], dtype=np.uint16), classes=entries)
    reader = SemanticMapReader(tmp_path, ignore=3)
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[8, 27, 0]]
    assert segmentation.segments == (Segment(8, 7, False, 1), Segment(27, 26, False, 1))


def test_a_map_of_void_has_no_segment(tmp_path: Path) -> None:
    write_pair(tmp_path, labels=np.full((2, 2), 255, dtype=np.uint8))
    reader = SemanticMapReader(tmp_path)
    segmentation = reader.read_segmentation(reader.images[0])
    assert not segmentation.segment_ids.any()
    assert segmentation.segments == ()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ignore": True}, ConfigError, "expected ignore to be a label, got True"),
        ({"ignore": None}, ConfigError, "expected ignore to be a label, got None"),
        ({"ignore": 0, "classes": ["a"]}, DatasetError, "classes beside ignore: expected at least one category"),
        ({"classes": []}, ConfigError, r"classes: expected a file, a list of names or {label: name}, got \[\]"),
        ({"classes": ["a", 1]}, ConfigError, "classes: expected a file, a list of names or {label: name}"),
        ({"classes": {"a": 1}}, ConfigError, "classes: expected a different label from 0 for each name, got 'a'"),
        ({"classes": 3}, ConfigError, "classes: expected a file, a list of names or {label: name}, got 3"),
        ({"classes": ["\ud800"]}, DatasetError, "classes: expected a category name of valid Unicode"),
        ({"classes": "nowhere.json"}, DatasetError, r"nowhere\.json: expected a file, found nothing"),
        ({"labels": "images"}, ConfigError, "expected two folders"),
        ({"images": "../x"}, DatasetError, "expected `images` to be a path inside its folder"),
        ({"split": "test"}, ConfigError, "expected split to be"),
        ({"split": "val", "val_share": 0}, DatasetError, "expected images in the split val, got none of 1"),
    ],
)
def test_invalid_options_raise_an_error(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_pair(tmp_path)
    with pytest.raises(error, match=message):
        SemanticMapReader(tmp_path, **options)


def test_more_than_255_classes_need_another_void_label(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(300)]
    write_pair(tmp_path, labels=np.array([[255, 299, 65535]], dtype=np.uint16), classes=names)
    assert SemanticMapReader(tmp_path).skipped == ("classes: 1 have the label 255, which is void: 'class 255'",)
    reader = SemanticMapReader(tmp_path, ignore=65535)
    assert (len(reader.categories), reader.skipped) == (300, ())
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[256, 300, 0]]


def test_issues_are_reported_and_splits_divide_the_images(tmp_path: Path) -> None:
    for number in range(20):
        write_pair(tmp_path, f"{number}")
    (tmp_path / "labels/3.png").unlink()
    Image.fromarray(MAP.T).save(tmp_path / "labels/4.png")
    issues: list[tuple[str, str]] = []

    def on_issue(code: str, error: DatasetError) -> None:
        issues.append((code, str(error).removeprefix(f"{tmp_path}/").split(": ")[0]))

    halves = {split: SemanticMapReader(tmp_path, split=split, on_issue=on_issue) for split in ("train", "val")}
    names = [{str(image.image_id) for image in half.images} for half in halves.values()]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {str(i) for i in range(20)} - {"3", "4"}
    missing_map = ("image-without-annotation", "images/3.png")
    assert sorted(issues) == [missing_map, missing_map, ("size-differs", "labels/4.png")]
    with pytest.raises(DatasetError, match="no label map has the image's name"):
        SemanticMapReader(tmp_path)


def test_objects_crowds_empty_segments_and_scores_are_reported(tmp_path: Path) -> None:
    with SemanticMapWriter(tmp_path, writer_samples.CATEGORIES) as writer:
        assert writer.add(IMAGE, GROUND_TRUTH) == [
            "3 objects of 1 classes are not told apart",
            "1 crowds are their class",
            "segment 7: it has no pixel",
            "scores cannot be held: 1 segments have one",
        ]
    assert writer.add(replace(IMAGE, file_name="y.jpg"), GROUND_TRUTH, [COVERED, COVERED])[-1] == OVERLAP
    assert writer.image_path(DatasetImage("x", "labels/x.png", (2, 3))) == tmp_path / "images/labels/x.png"
    assert np.asarray(Image.open(tmp_path / "labels/sub/x.png")).tolist() == [[0, 0, 0], [1, 1, 255]]
    with pytest.raises(DatasetError, match="expected at most 255 classes, got 256; convert"):
        SemanticMapWriter(tmp_path, CategorySet([Category(i, f"{i}", True, (0, 0, 0)) for i in range(256)]))


def test_names_that_readers_skip_raise_a_dataset_error(tmp_path: Path) -> None:
    writer = SemanticMapWriter(tmp_path, writer_samples.CATEGORIES)
    assert writer.image_path(replace(IMAGE, file_name="x.gif")) == tmp_path / "images/x.png"
    with pytest.raises(DatasetError, match="without hidden parts"):
        writer.add(replace(IMAGE, file_name=".h/x.png"), GROUND_TRUTH)


def test_things_are_written_as_stuff_of_their_class(tmp_path: Path) -> None:
    """person, cat, sky, grass are 0 to 3; the crowd of cats is cat."""
    image = DatasetImage(11, "d/x.png", (3, 4))
    with SemanticMapWriter(tmp_path, CATEGORIES) as writer:
        writer.add(image, first_image())
        path = writer.image_path(image)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (4, 3)).save(path)
    reader = SemanticMapReader(tmp_path)
    assert [c.name for c in reader.categories.categories] == ["person", "cat", "sky", "grass"]
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[3, 3, 3, 0], [1, 1, 3, 0], [1, 1, 2, 2]]
    assert segmentation.segments == (Segment(1, 0, False, 4), Segment(2, 1, False, 2), Segment(3, 2, False, 4))


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0, 1, 2, 255]))
)
def test_read_maps_are_written_back_unchanged(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    root = tmp_path_factory.mktemp("maps")
    path = write_pair(root, labels=labels)
    reader = SemanticMapReader(root)
    (image,) = reader.images
    first: PanopticSegmentation = reader.read_segmentation(image)
    assert sum(s.area_px for s in first.segments) == np.count_nonzero(labels != 255)
    with SemanticMapWriter(root / "again", reader.categories) as writer:
        assert writer.add(image, first) == []
    np.testing.assert_array_equal(np.asarray(Image.open(root / "again/labels/a.png")), np.asarray(Image.open(path)))
    assert json.loads((root / "again/classes.json").read_text()) == NAMES
