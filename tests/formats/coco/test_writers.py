"""What all writers promise, and what those of COCO's layouts cannot hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segkit.formats import coco
from segkit.formats.ade20k import ADE20KWriter
from segkit.formats.base import DatasetImage, DatasetWriter
from segkit.formats.cityscapes import CityscapesWriter
from segkit.formats.coco import (
    CocoInstancesReader,
    CocoInstancesWriter,
    CocoPanopticReader,
    CocoPanopticWriter,
    TwoChannelWriter,
)
from segkit.formats.label_images import SemanticMapWriter
from segkit.structures import CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import files_below
from tests.helpers.writer_samples import CATEGORIES, COVERED, GROUND_TRUTH, IMAGE, OVERLAP, SEGMENTS

WRITERS = [
    CocoPanopticWriter,
    CocoInstancesWriter,
    TwoChannelWriter,
    SemanticMapWriter,
    ADE20KWriter,
    CityscapesWriter,
]

Make = Callable[[Path, CategorySet], DatasetWriter]


@pytest.mark.parametrize("make", WRITERS)
def test_refusals_write_nothing(tmp_path: Path, make: Make) -> None:
    writer = make(tmp_path, CATEGORIES)
    for name in ("../x.jpg", "/x.jpg", "..\\x.jpg", "", "a/../../x.jpg", "x\0.jpg"):
        outside = DatasetImage("x", name, (2, 3))
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.add(outside, GROUND_TRUTH)
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.image_path(outside)
    for image, segments, message in (
        (DatasetImage("x", "x.jpg", (3, 2)), SEGMENTS, "of the image's size"),
        (IMAGE, SEGMENTS[1:], "ids of segments only, got 1"),
        (IMAGE, (*SEGMENTS, Segment(8, 6, True, 0)), r"category ids of the dataset, got \[6\]"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.add(image, PanopticSegmentation(GROUND_TRUTH.segment_ids, segments))
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("make", WRITERS)
def test_an_image_is_written_once_and_its_picture_below_the_root(tmp_path: Path, make: Make) -> None:
    with make(tmp_path, CATEGORIES) as writer:
        writer.add(IMAGE, GROUND_TRUTH)
        with pytest.raises(DatasetError, match="before"):
            writer.add(IMAGE, GROUND_TRUTH)
        assert writer.image_path(IMAGE).is_relative_to(tmp_path)
    assert (writer.root, writer.categories) == (tmp_path, CATEGORIES)


@pytest.mark.parametrize("make", WRITERS)
def test_an_index_of_an_earlier_run_outlives_an_error(tmp_path: Path, make: Make) -> None:
    with make(tmp_path, CATEGORIES) as writer:
        writer.add(IMAGE, GROUND_TRUTH)
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    with pytest.raises(KeyError), make(tmp_path, CATEGORIES):
        raise KeyError
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before


def test_panoptic_holds_all_but_empty_segments(tmp_path: Path) -> None:
    with CocoPanopticWriter(tmp_path, CATEGORIES) as writer:
        assert writer.add(IMAGE, GROUND_TRUTH) == ["segment 7: it has no pixel"]
    source = CocoPanopticReader(tmp_path / "panoptic.json", tmp_path / "panoptic", tmp_path / "images")
    assert source.images == (IMAGE,)
    assert source.read_segmentation(IMAGE).segments == SEGMENTS[:-1]
    assert writer.image_path(IMAGE) == tmp_path / "images/sub/x.jpg"


def test_instances_tell_stuff_empty_segments_and_scores(tmp_path: Path) -> None:
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        assert writer.add(IMAGE, GROUND_TRUTH) == [
            "1 segments of stuff cannot be held",
            "segment 7: it has no pixel",
            "scores cannot be held: 1 segments have one",
        ]
    content = coco.read_instances(tmp_path / "instances.json")
    assert [(a["id"], a["area"], a["iscrowd"]) for a in content.annotations] == [(1, 1, 0), (2, 1, 0), (3, 1, 1)]
    with pytest.raises(DatasetError, match="expected categories with things, all are stuff; convert"):
        CocoInstancesWriter(tmp_path, CategorySet(CATEGORIES.stuff))


def test_instances_keep_whole_masks_that_overlap(tmp_path: Path) -> None:
    """Of the first mask nothing is left in the map: it is held all the same."""
    ground_truth = PanopticSegmentation(np.array([[2, 2]], np.int32), (Segment(2, 5, True, 2),))
    mask = mask_to_rle(np.array([[True, True]]))
    one = {"category_id": 5, "iscrowd": 0, "area": 2, "bbox": [0, 0, 2, 1], "segmentation": mask}
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        assert writer.add(DatasetImage(3, "x.jpg", (1, 2)), ground_truth, [one, one]) == []
    assert [a["area"] for a in coco.read_instances(tmp_path / "instances.json").annotations] == [2, 2]


def test_instances_come_out_as_they_went_in(tmp_path: Path) -> None:
    """Ids, polygons and their area, and all that others may have added; but NaN, which JSON has not."""
    mask = {"size": [2, 3], "counts": [1, 5]}
    entry = {"image_id": "x", "category_id": 5, "iscrowd": 0, "area": 2.5, "bbox": [0, 0, 3, 2], "segmentation": mask}
    annotations = [
        {**entry, "id": 404330, "segmentation": [[0, 0, 3, 0, 3, 2]], "attributes": {"occluded": True}},
        {**entry, "id": 17, "iscrowd": 1},
    ]
    image = {"id": "x", "file_name": "x.jpg", "height": 2, "width": 3, "license": 4, "flickr_url": "http://x"}
    content = {"info": {"year": 2017}, "licenses": [{"id": 4}], "images": [image], "annotations": annotations}
    content["categories"] = [{"id": 5, "name": "car", "isthing": 1, "color": [1, 2, 3], "supercategory": "vehicle"}]
    spoiled = json.loads(json.dumps(content))
    spoiled["annotations"][1]["depth"], spoiled["images"][0]["gps"] = float("nan"), [float("inf")]
    (tmp_path / "i.json").write_text(json.dumps(spoiled))
    source = CocoInstancesReader(tmp_path / "i.json", tmp_path)
    (found,) = source.images
    with CocoInstancesWriter(tmp_path / "out", source.categories) as writer:
        writer.info = source.info
        assert writer.add(found, source.read_segmentation(found), source.read_annotations(found)) == [
            "the image: the values of 'gps' cannot be held, JSON has no NaN",
            "annotation 17: the values of 'depth' cannot be held, JSON has no NaN",
        ]
    assert json.loads((tmp_path / "out/instances.json").read_text()) == content


def test_ids_that_cannot_be_kept_are_numbered(tmp_path: Path) -> None:
    """3 and 1 are kept, the second 3 and all others get what is free: 2, 4, 5, 6, 7."""
    mask = mask_to_rle(np.array([[True, True]]))
    one = {"category_id": 5, "iscrowd": 0, "area": 2, "bbox": [0, 0, 2, 1], "segmentation": mask}
    ground_truth = PanopticSegmentation(np.array([[2, 2]], np.int32), (Segment(2, 5, True, 2),))
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        given = [{**one, "id": i} for i in (3, 3, 0, -1, True, 1)]
        writer.add(DatasetImage(3, "x.jpg", (1, 2)), ground_truth, [*given, one])
    annotations = coco.read_instances(tmp_path / "instances.json").annotations
    assert [a["id"] for a in annotations] == [3, 2, 4, 5, 6, 1, 7]


def test_panoptic_keeps_what_is_said_of_images_and_tells_what_masks_lose(tmp_path: Path) -> None:
    image = replace(IMAGE, extra={"license": 4, "gps": float("nan")})
    with CocoPanopticWriter(tmp_path, CATEGORIES) as writer:
        writer.info = {"licenses": [{"id": 4}]}
        assert writer.add(image, GROUND_TRUTH, [{**COVERED, "mine": 1}, COVERED]) == [
            "the image: the values of 'gps' cannot be held, JSON has no NaN",
            "segment 7: it has no pixel",
            "annotations: the keys 'mine' cannot be held",
            OVERLAP,
        ]
    source = CocoPanopticReader(tmp_path / "panoptic.json", tmp_path / "panoptic", tmp_path / "images")
    assert (source.images[0].extra, source.info) == ({"license": 4}, {"licenses": [{"id": 4}]})
