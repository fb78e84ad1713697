"""Readers of COCO's panoptic and instances formats, on tiny datasets."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats import coco
from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage
from segkit.formats.coco import (
    CocoInstancesReader,
    CocoPanopticReader,
    PanopticWriter,
    paint_annotations,
)
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])


def build_annotation(rows: list[list[int]], category_id: int = 3, iscrowd: int = 0) -> dict[str, Any]:
    mask = np.array(rows, dtype=bool)
    return {
        "image_id": 1,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "area": int(mask.sum()),
        "bbox": [0, 0, mask.shape[1], mask.shape[0]],
        "segmentation": mask_to_rle(mask),
    }


LARGE, SMALL, CROWD = [[1, 1, 1, 0]], [[0, 0, 1, 1]], [[1, 1, 1, 1]]


def test_overlap_pixels_get_the_smaller_or_the_later_mask_and_never_a_crowd() -> None:
    """Pixel 2 is in LARGE (3 pixels) and in SMALL (2 pixels). The crowd is painted last and gets no pixel."""
    given = [build_annotation(SMALL), build_annotation(LARGE), build_annotation(CROWD, iscrowd=1)]
    small = paint_annotations(given, (1, 4))
    assert small.segment_ids.tolist() == [[2, 2, 1, 1]]
    assert [(s.segment_id, s.area_px, s.iscrowd) for s in small.segments] == [(1, 2, False), (2, 2, False)]
    assert paint_annotations(given, (1, 4), "later_on_top").segment_ids.tolist() == [[2, 2, 2, 1]]
    crowd = paint_annotations([build_annotation(SMALL), build_annotation(CROWD, iscrowd=1)], (1, 4))
    assert crowd.segment_ids.tolist() == [[2, 2, 1, 1]]
    assert [s.iscrowd for s in crowd.segments] == [False, True]
    assert paint_annotations([], (1, 4)).segment_ids.tolist() == [[0, 0, 0, 0]]


def test_the_later_of_two_equal_masks_gets_the_pixels() -> None:
    fused = paint_annotations([build_annotation(SMALL), build_annotation(SMALL)], (1, 4))
    assert fused.segment_ids.tolist() == [[0, 0, 2, 2]]
    assert [s.segment_id for s in fused.segments] == [2]


def test_masks_are_decoded_one_at_a_time() -> None:
    """40 masks of 250 000 pixels are 10 MB; the map is 1 MB, and its runs are few."""
    given = [{**build_annotation([[1]]), "segmentation": mask_to_rle(np.ones((500, 500), bool))}] * 40
    paint_annotations(given, (500, 500))  # compiles
    tracemalloc.start()
    try:
        paint_annotations(given, (500, 500))
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def save_image(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(size_hw[0] * size_hw[1] * 3, dtype=np.uint8).reshape(*size_hw, 3)).save(path)


def test_a_panoptic_dataset_is_read(tmp_path: Path) -> None:
    ground_truth = PanopticSegmentation(
        np.array([[7, 7, 0], [300, 300, 300]], np.int32), (Segment(7, 3, True, 2), Segment(300, 9, False, 3))
    )
    with PanopticWriter(tmp_path / "a.json", tmp_path / "a", CATEGORIES) as writer:
        writer.add("x", "x.png", ground_truth)
    save_image(tmp_path / "images" / "x.png", (2, 3))
    reader = CocoPanopticReader(tmp_path / "a.json", tmp_path / "a", tmp_path / "images")
    (image,) = reader.images
    assert (image.image_id, image.file_name, image.size_hw) == ("x", "x.png", (2, 3))
    assert reader.categories == CATEGORIES
    assert np.array_equal(reader.read_segmentation(image).segment_ids, ground_truth.segment_ids)
    assert [(a["category_id"], a["area"]) for a in reader.read_annotations(image)] == [(3, 2)]
    assert reader.read_image(image).shape == (2, 3, 3)
    save_image(tmp_path / "images" / "x.png", (3, 3))
    with pytest.raises(DatasetError, match=r"x\.png: expected 2 x 3 pixels"):
        reader.read_image(image)


def test_annotations_of_an_instances_dataset_keep_the_whole_masks(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "x.png", "height": 1, "width": 4}]
    coco.write_instances(tmp_path / "i.json", images, [build_annotation(LARGE), build_annotation(SMALL)], CATEGORIES)
    reader = CocoInstancesReader(tmp_path / "i.json", tmp_path)
    (image,) = reader.images
    assert reader.read_segmentation(image).segment_ids.tolist() == [[1, 1, 2, 2]]
    assert [a["segmentation"] for a in reader.read_annotations(image)] == [
        mask_to_rle(np.array(m, bool)) for m in (LARGE, SMALL)
    ]
    reader_later_on_top = CocoInstancesReader(tmp_path / "i.json", tmp_path, overlap="later_on_top")
    assert reader_later_on_top.read_segmentation(image).segment_ids.tolist() == [[1, 1, 2, 2]]
    with pytest.raises(ValueError, match="overlap must be one of"):
        CocoInstancesReader(tmp_path / "i.json", tmp_path, overlap="random")


EXTRAS = {"license": 3, "coco_url": "http://x", "tags": ["a"]}
NAN = float("nan")


def test_other_keys_of_an_instances_json_are_kept(tmp_path: Path) -> None:
    polygon, runs = [[0, 0, 2, 0, 2, 1]], {"size": [1, 4], "counts": [1, 3]}
    masks = (polygon, runs, mask_to_rle(np.array(SMALL, bool)))
    extended_annotations = [
        {**build_annotation(SMALL), "id": 7 + i, "segmentation": mask, "mine": i} for i, mask in enumerate(masks)
    ]
    images = [{"id": 1, "file_name": "x.png", "height": 1, "width": 4, **EXTRAS}]
    info = {"info": {"year": 2017}, "licenses": [{"id": 3}]}
    coco.write_instances(tmp_path / "i.json", images, extended_annotations, CATEGORIES, info)
    content = json.loads((tmp_path / "i.json").read_text())
    (tmp_path / "i.json").write_text(json.dumps({**content, "bad": [NAN]}))
    reader = CocoInstancesReader(tmp_path / "i.json", tmp_path)
    (image,) = reader.images
    assert (image.extra, reader.info) == (EXTRAS, info)
    assert reader.skipped == (f"{tmp_path / 'i.json'}: 1 keys whose value JSON cannot hold (NaN, say): 'bad'",)
    annotations = reader.read_annotations(image)
    assert [(a["id"], a["mine"], a[ORIGINAL_SEGMENTATION]) for a in annotations] == [
        (7, 0, polygon),
        (8, 1, runs),
        (9, 2, masks[2]),
    ]
    assert {type(a["segmentation"]["counts"]) for a in annotations} == {str}
    assert image == DatasetImage(1, "x.png", (1, 4))


def test_other_keys_of_a_panoptic_json_are_kept_or_reported(tmp_path: Path) -> None:
    with PanopticWriter(tmp_path / "p.json", tmp_path, CATEGORIES) as writer:
        writer.add(1, "x.jpg", PanopticSegmentation(np.ones((1, 2), np.int32), (Segment(1, 3, True, 2),)), EXTRAS)
        writer.info = {"licenses": []}
    content = json.loads((tmp_path / "p.json").read_text())
    content["annotations"][0]["segments_info"][0]["mine"] = 5
    (tmp_path / "p.json").write_text(json.dumps({**content, "bad": NAN}))
    reader = CocoPanopticReader(tmp_path / "p.json", tmp_path, tmp_path)
    assert (reader.images[0].extra, reader.info) == (EXTRAS, {"licenses": []})
    assert [line.removeprefix(f"{tmp_path / 'p.json'}: ") for line in reader.skipped] == [
        "1 keys whose value JSON cannot hold (NaN, say): 'bad'",
        "1 keys of annotations and categories that are not read: 'mine'",
    ]
