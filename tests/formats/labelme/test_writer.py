from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats.base import DatasetImage
from segkit.formats.coco import OVERLAPS, paint_annotations
from segkit.formats.labelme import LabelmeReader, LabelmeWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, files_below, first_image, second_image

THINGS_AND_STUFF = {"things": ["person", "cat"], "stuff": ["sky", "grass"]}
STUFF = """which labels are stuff cannot be held; read it with --set 'stuff=["sky", "grass"]'"""


def write_and_open(
    root: Path,
    segmentation: PanopticSegmentation,
    annotations: list | None = None,
    categories: CategorySet = CATEGORIES,
) -> tuple[list[str], LabelmeReader]:
    image = DatasetImage(3, "sub/x.jpg", segmentation.segment_ids.shape)
    with LabelmeWriter(root, categories) as writer:
        lines = writer.add(image, segmentation, annotations)
        path = writer.image_path(image)
    Image.new("L", image.size_hw[::-1]).save(path)
    return lines, LabelmeReader(root, **THINGS_AND_STUFF)


def list_segments(segmentation: PanopticSegmentation, categories: CategorySet) -> list[tuple]:
    """Returns (name, isthing, iscrowd, area, pixels) of each segment, without ids."""
    return [
        (
            categories[s.category_id].name,
            s.isthing,
            s.iscrowd,
            s.area_px,
            (segmentation.segment_ids == s.segment_id).tolist(),
        )
        for s in segmentation.segments
    ]


@settings(deadline=None)
@given(
    values=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 4)),
    crowd=st.booleans(),
)
def test_written_segmentations_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, crowd: bool
) -> None:
    ids = np.array([0, 9, 70000, 3, 5], dtype=np.int32)[values]
    kinds = {3: 10, 9: 3, 70000: 1, 5: 3}
    segments = tuple(
        Segment(i, kind, kind < 10, int((ids == i).sum()), crowd and i == 9)
        for i, kind in kinds.items()
        if (ids == i).any()
    )
    segmentation = PanopticSegmentation(ids, segments)
    lines, reader = write_and_open(tmp_path_factory.mktemp("labelme"), segmentation)
    assert lines == ([STUFF] if (ids == 3).any() else [])
    assert reader.images == (DatasetImage("sub/x", "sub/x.jpg", values.shape),)
    read_back = reader.read_segmentation(reader.images[0])
    assert list_segments(read_back, reader.categories) == list_segments(segmentation, CATEGORIES)
    assert [s.segment_id for s in read_back.segments] == list(range(1, len(segments) + 1))


def test_pieces_are_polygons_and_holes_are_masks(tmp_path: Path) -> None:
    ids = np.array([[1, 0, 1, 3], [1, 1, 0, 3], [2, 2, 2, 3], [2, 0, 2, 3], [2, 2, 2, 3]], dtype=np.int32)
    segments = (Segment(1, 1, True, 4), Segment(2, 3, True, 8), Segment(3, 10, False, 5))
    write_and_open(tmp_path, PanopticSegmentation(ids, segments))
    content = json.loads((tmp_path / "sub/x.json").read_text())
    shapes = content.pop("shapes")
    assert content == {
        "version": "5.5.0",
        "flags": {},
        "imagePath": "x.jpg",
        "imageData": None,
        "imageHeight": 5,
        "imageWidth": 4,
    }
    # The person's pixels touch at a corner only: one outline. The sky is too thin for a polygon.
    assert [(s["label"], s["shape_type"], s["group_id"]) for s in shapes] == [
        ("person", "polygon", None),
        ("cat", "mask", None),
        ("sky", "mask", None),
    ]
    assert {tuple(point) for point in shapes[0]["points"]} == {(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 0.0)}
    assert shapes[1]["points"] == [[0.0, 2.0], [2.0, 4.0]]
    assert shapes[2]["points"] == [[3.0, 0.0], [3.0, 4.0]]
    two_pieces = PanopticSegmentation(np.array([[1, 1, 0, 1, 1]] * 2, dtype=np.int32), (Segment(1, 1, True, 8),))
    write_and_open(tmp_path, two_pieces)
    shapes = json.loads((tmp_path / "sub/x.json").read_text())["shapes"]
    assert [(s["shape_type"], s["group_id"]) for s in shapes] == [("polygon", 1), ("polygon", 1)]


def build_overlapping_masks() -> tuple[PanopticSegmentation, list[dict]]:
    # A cat (4) over a person (2), and sky (6) over both; the person's second half is hidden by the cat.
    ids = np.array([[2, 4, 4, 6], [2, 4, 4, 6]], dtype=np.int32)
    segments = (Segment(6, 10, False, 2), Segment(2, 1, True, 2), Segment(4, 3, True, 4, iscrowd=True))
    person, cat = np.zeros((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    person[:, :2], cat[:, 1:] = True, True
    annotations = [
        {"category_id": 1, "iscrowd": 0, "segmentation": mask_to_rle(person)},
        {"category_id": 3, "iscrowd": 1, "segmentation": mask_to_rle(cat)},
    ]
    return PanopticSegmentation(ids, segments), annotations


def test_overlapping_masks_are_read_back(tmp_path: Path) -> None:
    segmentation, annotations = build_overlapping_masks()
    lines, reader = write_and_open(tmp_path, segmentation, annotations)
    assert lines == [STUFF]
    assert sorted(list_segments(reader.read_segmentation(reader.images[0]), reader.categories)) == sorted(
        list_segments(segmentation, CATEGORIES)
    )
    read_back = reader.read_annotations(reader.images[0])
    assert [a["segmentation"] for a in read_back] == [a["segmentation"] for a in annotations]
    assert [a["iscrowd"] for a in read_back] == [0, 1]


@pytest.mark.parametrize("change", ["order", "category", "crowd", "missing", "more", "twice"])
def test_masks_that_contradict_the_segmentation_are_reported(tmp_path: Path, change: str) -> None:
    segmentation, annotations = build_overlapping_masks()
    whole_masks = mask_to_rle(np.ones((2, 4), dtype=bool))
    changed_annotations = {
        "order": annotations[::-1],
        "category": [{**annotations[0], "category_id": 3}, annotations[1]],
        "crowd": [annotations[0], {**annotations[1], "iscrowd": 0}],
        "missing": annotations[1:],
        "more": [*annotations, {**annotations[0], "segmentation": whole_masks}],
        "twice": [*annotations, {**annotations[1], "segmentation": mask_to_rle(segmentation.segment_ids[:] == 4)}],
    }[change]
    lines, reader = write_and_open(tmp_path, segmentation, changed_annotations)
    assert (
        list_segments(reader.read_segmentation(reader.images[0]), reader.categories)
        == list_segments(segmentation, CATEGORIES)
        or change == "twice"
    )
    if change == "twice":  # the second cat occludes the visible part of the first: the map is the same
        assert lines == [STUFF]
        assert len(reader.read_annotations(reader.images[0])) == 3
    else:
        assert len(lines) == 2
        assert lines[0].startswith("annotations: their masks, painted in order, do not give the segmentation")


def test_empty_segments_and_scores_are_reported_as_losses(tmp_path: Path) -> None:
    segmentation = first_image()
    empty = Segment(8, 3, True, 0)
    lines, reader = write_and_open(
        tmp_path, PanopticSegmentation(segmentation.segment_ids, (*segmentation.segments, empty))
    )
    assert lines == [
        "segment 8: it has no pixel",
        "scores cannot be held: 1 segments have one",
        STUFF,
    ]
    assert list_segments(reader.read_segmentation(reader.images[0]), reader.categories) == list_segments(
        segmentation, CATEGORIES
    )


def test_stuff_is_reported_once_and_as_the_command_line_takes_it(tmp_path: Path) -> None:
    stuff = second_image()
    things = PanopticSegmentation(np.array([[1]], np.int32), (Segment(1, 1, True, 1),))
    with LabelmeWriter(tmp_path, CATEGORIES) as writer:
        images = {"a.png": things, "b.png": stuff, "c.png": stuff}
        lines = [writer.add(DatasetImage(n, n, s.segment_ids.shape), s) for n, s in images.items()]
    assert lines == [[], [STUFF], []]
    (option,) = shlex.split(STUFF.partition("--set ")[2])
    assert yaml.safe_load(option.removeprefix("stuff=")) == ["sky", "grass"]


def test_invalid_names_sizes_and_categories_raise_an_error(tmp_path: Path) -> None:
    writer, segmentation = LabelmeWriter(tmp_path, CATEGORIES), first_image()
    for name in ("../x.png", "/x.png", "", "a\0.png"):
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.add(DatasetImage(1, name, (3, 4)), segmentation)
    with pytest.raises(ValueError, match="must be of the image's size"):
        writer.add(DatasetImage(1, "x.png", (4, 3)), segmentation)
    assert files_below(tmp_path) == set()
    writer.add(DatasetImage(1, "x.png", (3, 4)), segmentation)
    with pytest.raises(DatasetError, match=r"an image named x was added before; rename the image"):
        writer.add(DatasetImage(2, "x.jpg", (3, 4)), segmentation)
    repeated_names = CategorySet([Category(1, "dog", True, (0, 0, 0)), Category(2, "dog", False, (0, 0, 0))])
    with pytest.raises(DatasetError, match="expected categories of different names, got 'dog' more than once"):
        LabelmeWriter(tmp_path, repeated_names)
    with pytest.raises(DatasetError, match="expected categories of different names, got an empty one"):
        LabelmeWriter(tmp_path, CategorySet([Category(1, "", True, (0, 0, 0))]))


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_masks_are_written_in_the_order_in_which_they_were_painted(tmp_path: Path, overlap: str) -> None:
    """The cat has columns 0 and 1, the person columns 0 to 2, the crowd all columns and the last place in the order.

    The crowd is always below. The person hides the cat for `later_on_top`; the cat hides two columns of the person for
    `small_on_top`.
    """
    masks = np.array([[1, 1, 0, 0]], bool), np.array([[1, 1, 1, 0]], bool), np.array([[1, 1, 1, 1]], bool)
    annotations = [
        {"category_id": category_id, "iscrowd": iscrowd, "segmentation": mask_to_rle(mask)}
        for category_id, iscrowd, mask in zip((3, 1, 3), (0, 0, 1), masks, strict=True)
    ]
    segmentation = paint_annotations(annotations, (1, 4), overlap)
    assert segmentation.segment_ids.tolist() == [[1, 1, 2, 3] if overlap == "small_on_top" else [2, 2, 2, 3]]
    lines, reader = write_and_open(tmp_path, segmentation, annotations)
    assert lines == []
    whole_masks = {(a["category_id"], a["iscrowd"], a["area"]) for a in reader.read_annotations(reader.images[0])}
    assert whole_masks == {(1, 0, 2), (3, 0, 3), (1, 1, 4)}  # cat, grass, person, sky are 1 to 4
    read_back = reader.read_segmentation(reader.images[0])
    assert sorted(list_segments(read_back, reader.categories)) == sorted(list_segments(segmentation, CATEGORIES))
