"""Rules that all writers follow, and what COCO's formats cannot hold."""

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
    CocoResultsWriter,
    CocoSubmissionWriter,
    CvatPanopticWriter,
    TwoChannelWriter,
)
from segkit.formats.geojson import GeoJsonWriter
from segkit.formats.label_images import SemanticMapWriter
from segkit.formats.label_studio import LabelStudioWriter
from segkit.formats.voc import CvatMasksWriter
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
    CocoResultsWriter,
    CocoSubmissionWriter,
    CvatPanopticWriter,
    CvatMasksWriter,
    GeoJsonWriter,
    LabelStudioWriter,
]

OpenWriter = Callable[[Path, CategorySet], DatasetWriter]


@pytest.mark.parametrize("open_writer", WRITERS)
def test_invalid_images_and_segments_raise_an_error_and_write_nothing(tmp_path: Path, open_writer: OpenWriter) -> None:
    writer = open_writer(tmp_path, CATEGORIES)
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


@pytest.mark.parametrize("open_writer", WRITERS)
def test_an_image_is_added_once_and_its_path_is_below_the_root(tmp_path: Path, open_writer: OpenWriter) -> None:
    with open_writer(tmp_path, CATEGORIES) as writer:
        writer.add(IMAGE, GROUND_TRUTH)
        with pytest.raises(DatasetError, match="before"):
            writer.add(IMAGE, GROUND_TRUTH)
        assert writer.image_path(IMAGE).is_relative_to(tmp_path)
    assert (writer.root, writer.categories) == (tmp_path, CATEGORIES)


@pytest.mark.parametrize("open_writer", WRITERS)
def test_an_error_keeps_the_files_of_an_earlier_run(tmp_path: Path, open_writer: OpenWriter) -> None:
    with open_writer(tmp_path, CATEGORIES) as writer:
        writer.add(IMAGE, GROUND_TRUTH)
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    with pytest.raises(KeyError), open_writer(tmp_path, CATEGORIES):
        raise KeyError
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before


def test_the_panoptic_writer_keeps_all_segments_except_empty_ones(tmp_path: Path) -> None:
    with CocoPanopticWriter(tmp_path, CATEGORIES) as writer:
        assert writer.add(IMAGE, GROUND_TRUTH) == ["segment 7: it has no pixel"]
    reader = CocoPanopticReader(tmp_path / "panoptic.json", tmp_path / "panoptic", tmp_path / "images")
    assert reader.images == (IMAGE,)
    assert reader.read_segmentation(IMAGE).segments == SEGMENTS[:-1]
    assert writer.image_path(IMAGE) == tmp_path / "images/sub/x.jpg"


def test_the_instances_writer_reports_stuff_empty_segments_and_scores(tmp_path: Path) -> None:
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


def test_the_instances_writer_keeps_overlapping_masks(tmp_path: Path) -> None:
    """The first mask has no pixel in the map. It is written nevertheless."""
    ground_truth = PanopticSegmentation(np.array([[2, 2]], np.int32), (Segment(2, 5, True, 2),))
    mask = mask_to_rle(np.array([[True, True]]))
    annotation = {"category_id": 5, "iscrowd": 0, "area": 2, "bbox": [0, 0, 2, 1], "segmentation": mask}
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        assert writer.add(DatasetImage(3, "x.jpg", (1, 2)), ground_truth, [annotation, annotation]) == []
    assert [a["area"] for a in coco.read_instances(tmp_path / "instances.json").annotations] == [2, 2]


def test_an_instances_json_is_written_back_unchanged_except_for_nan(tmp_path: Path) -> None:
    """Ids, polygons, areas and extra keys are kept. NaN is dropped, because JSON has no NaN."""
    mask = {"size": [2, 3], "counts": [1, 5]}
    entry = {"image_id": "x", "category_id": 5, "iscrowd": 0, "area": 2.5, "bbox": [0, 0, 3, 2], "segmentation": mask}
    annotations = [
        {**entry, "id": 404330, "segmentation": [[0, 0, 3, 0, 3, 2]], "attributes": {"occluded": True}},
        {**entry, "id": 17, "iscrowd": 1},
    ]
    image = {"id": "x", "file_name": "x.jpg", "height": 2, "width": 3, "license": 4, "flickr_url": "http://x"}
    content = {"info": {"year": 2017}, "licenses": [{"id": 4}], "images": [image], "annotations": annotations}
    content["categories"] = [{"id": 5, "name": "car", "isthing": 1, "color": [1, 2, 3], "supercategory": "vehicle"}]
    with_nan = json.loads(json.dumps(content))
    with_nan["annotations"][1]["depth"], with_nan["images"][0]["gps"] = float("nan"), [float("inf")]
    (tmp_path / "i.json").write_text(json.dumps(with_nan))
    reader = CocoInstancesReader(tmp_path / "i.json", tmp_path)
    (image_read,) = reader.images
    with CocoInstancesWriter(tmp_path / "out", reader.categories) as writer:
        writer.info = reader.info
        assert writer.add(image_read, reader.read_segmentation(image_read), reader.read_annotations(image_read)) == [
            "the image: the values of 'gps' cannot be held, JSON has no NaN",
            "annotation 17: the values of 'depth' cannot be held, JSON has no NaN",
        ]
    assert json.loads((tmp_path / "out/instances.json").read_text()) == content


def test_invalid_and_repeated_annotation_ids_are_replaced(tmp_path: Path) -> None:
    """3 and 1 are kept. The second 3 and the other annotations get the free ids 2, 4, 5, 6, 7."""
    mask = mask_to_rle(np.array([[True, True]]))
    annotation = {"category_id": 5, "iscrowd": 0, "area": 2, "bbox": [0, 0, 2, 1], "segmentation": mask}
    ground_truth = PanopticSegmentation(np.array([[2, 2]], np.int32), (Segment(2, 5, True, 2),))
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        annotations_with_ids = [{**annotation, "id": i} for i in (3, 3, 0, -1, True, 1)]
        writer.add(DatasetImage(3, "x.jpg", (1, 2)), ground_truth, [*annotations_with_ids, annotation])
    annotations = coco.read_instances(tmp_path / "instances.json").annotations
    assert [a["id"] for a in annotations] == [3, 2, 4, 5, 6, 1, 7]


def test_the_panoptic_writer_keeps_extra_keys_of_images_and_reports_lost_ones(tmp_path: Path) -> None:
    image = replace(IMAGE, extra={"license": 4, "gps": float("nan")})
    with CocoPanopticWriter(tmp_path, CATEGORIES) as writer:
        writer.info = {"licenses": [{"id": 4}]}
        assert writer.add(image, GROUND_TRUTH, [{**COVERED, "mine": 1}, COVERED]) == [
            "the image: the values of 'gps' cannot be held, JSON has no NaN",
            "segment 7: it has no pixel",
            "annotations: the keys 'mine' cannot be held",
            OVERLAP,
        ]
    reader = CocoPanopticReader(tmp_path / "panoptic.json", tmp_path / "panoptic", tmp_path / "images")
    assert (reader.images[0].extra, reader.info) == ({"license": 4}, {"licenses": [{"id": 4}]})
