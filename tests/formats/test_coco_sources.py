"""COCO's layouts as sources, by tiny datasets in a temporary folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.curation.findings import RULES
from segkit.formats import coco_instances, coco_panoptic
from segkit.formats.coco_sources import (
    CocoInstancesSource,
    CocoPanopticSource,
    TwoChannelSource,
    panoptic_of_annotations,
)
from segkit.structures import Category, CategorySet, DatasetError, PanopticSegmentation, Segment, mask_to_rle

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])


def annotation(rows: list[list[int]], category_id: int = 3, iscrowd: int = 0) -> dict[str, Any]:
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


def test_overlaps_go_to_the_smaller_mask_or_to_the_later_one_and_crowds_lie_below() -> None:
    """Pixel 2 is in LARGE (3 pixels) and in SMALL (2). The crowd, though drawn last, keeps nothing."""
    given = [annotation(SMALL), annotation(LARGE), annotation(CROWD, iscrowd=1)]
    small = panoptic_of_annotations(given, (1, 4))
    assert small.segment_ids.tolist() == [[2, 2, 1, 1]]
    assert [(s.segment_id, s.area_px, s.iscrowd) for s in small.segments] == [(1, 2, False), (2, 2, False)]
    assert panoptic_of_annotations(given, (1, 4), "later_on_top").segment_ids.tolist() == [[2, 2, 2, 1]]
    crowd = panoptic_of_annotations([annotation(SMALL), annotation(CROWD, iscrowd=1)], (1, 4))
    assert crowd.segment_ids.tolist() == [[2, 2, 1, 1]]
    assert [s.iscrowd for s in crowd.segments] == [False, True]
    assert panoptic_of_annotations([], (1, 4)).segment_ids.tolist() == [[0, 0, 0, 0]]


def test_of_equal_masks_the_later_one_has_the_pixels() -> None:
    fused = panoptic_of_annotations([annotation(SMALL), annotation(SMALL)], (1, 4))
    assert fused.segment_ids.tolist() == [[0, 0, 2, 2]]
    assert [s.segment_id for s in fused.segments] == [2]


def picture(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(size_hw[0] * size_hw[1] * 3, dtype=np.uint8).reshape(*size_hw, 3)).save(path)


def test_a_panoptic_dataset(tmp_path: Path) -> None:
    truth = PanopticSegmentation(
        np.array([[7, 7, 0], [300, 300, 300]], np.int32), (Segment(7, 3, True, 2), Segment(300, 9, False, 3))
    )
    with coco_panoptic.PanopticWriter(tmp_path / "a.json", tmp_path / "a", CATEGORIES) as writer:
        writer.add("x", "x.png", truth)
    picture(tmp_path / "images" / "x.png", (2, 3))
    source = CocoPanopticSource(tmp_path / "a.json", tmp_path / "a", tmp_path / "images")
    (image,) = source.images
    assert (image.image_id, image.file_name, image.size_hw) == ("x", "x.png", (2, 3))
    assert source.categories == CATEGORIES
    assert np.array_equal(source.segmentation(image).segment_ids, truth.segment_ids)
    assert [(a["category_id"], a["area"]) for a in source.annotations(image)] == [(3, 2)]
    assert source.picture(image).shape == (2, 3, 3)
    picture(tmp_path / "images" / "x.png", (3, 3))
    with pytest.raises(DatasetError, match=r"x\.png: expected 2 x 3 pixels"):
        source.picture(image)


def test_an_instances_dataset_keeps_the_whole_masks(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "x.png", "height": 1, "width": 4}]
    coco_instances.write(tmp_path / "i.json", images, [annotation(LARGE), annotation(SMALL)], CATEGORIES)
    source = CocoInstancesSource(tmp_path / "i.json", tmp_path)
    (image,) = source.images
    assert source.segmentation(image).segment_ids.tolist() == [[1, 1, 2, 2]]
    assert [a["segmentation"] for a in source.annotations(image)] == [
        mask_to_rle(np.array(m, bool)) for m in (LARGE, SMALL)
    ]
    later = CocoInstancesSource(tmp_path / "i.json", tmp_path, overlap="later_on_top")
    assert later.segmentation(image).segment_ids.tolist() == [[1, 1, 2, 2]]
    with pytest.raises(ValueError, match="overlap must be one of"):
        CocoInstancesSource(tmp_path / "i.json", tmp_path, overlap="random")


def two_channels(folder: Path, red: list[list[int]], green: list[list[int]], blue: int = 0) -> TwoChannelSource:
    pixels = np.stack([np.array(red), np.array(green), np.full_like(np.array(red), blue)], axis=2).astype(np.uint8)
    (folder / "masks").mkdir()
    Image.fromarray(pixels).save(folder / "masks" / "a.png")
    picture(folder / "images" / "a.jpg", pixels.shape[:2])
    (folder / "c.json").write_text(json.dumps(CATEGORIES.to_coco()))
    return TwoChannelSource(folder / "masks", folder / "images", folder / "c.json")


def test_two_channels(tmp_path: Path) -> None:
    """Two cats, numbers 0 and 1, sky, and a void pixel."""
    source = two_channels(tmp_path, [[3, 3, 9], [3, 0, 9]], [[0, 1, 0], [1, 0, 0]])
    (image,) = source.images
    found = source.segmentation(image)
    assert (image.image_id, image.file_name, image.size_hw) == ("a", "a.jpg", (2, 3))
    assert found.segment_ids.tolist() == [[3, 3 + 256, 9], [3 + 256, 0, 9]]
    assert [(s.category_id, s.isthing, s.area_px) for s in found.segments] == [
        (3, True, 1),
        (9, False, 2),
        (3, True, 2),
    ]


@pytest.mark.parametrize(("red", "blue"), [([[4, 3]], 0), ([[3, 3]], 1)])
def test_two_channels_that_are_something_else(tmp_path: Path, red: list[list[int]], blue: int) -> None:
    source = two_channels(tmp_path, red, [[0, 0]], blue)
    with pytest.raises(DatasetError, match="expected a category id in R, a number in G and 0 in B"):
        source.segmentation(source.images[0])


def test_two_channels_without_their_image(tmp_path: Path) -> None:
    two_channels(tmp_path, [[3]], [[0]])
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: expected an image a\.jpg or \.png"):
        TwoChannelSource(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")


def test_two_channels_in_folders(tmp_path: Path) -> None:
    """Two PNGs of one name in two folders are two images."""
    source = two_channels(tmp_path, [[3, 9]], [[0, 0]])
    assert source.images[0].image_id == "a"
    (tmp_path / "masks" / "deep").mkdir()
    Image.fromarray(np.array([[[9, 0, 0]]], dtype=np.uint8)).save(tmp_path / "masks" / "deep" / "a.png")
    picture(tmp_path / "images" / "deep" / "a.png", (1, 1))
    source = TwoChannelSource(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
    assert [(i.image_id, i.file_name) for i in source.images] == [("a", "a.jpg"), ("deep/a", "deep/a.png")]
    assert [source.segmentation(i).segment_ids.tolist() for i in source.images] == [[[3, 9]], [[9]]]


def test_all_faults_of_two_channels_are_told(tmp_path: Path) -> None:
    two_channels(tmp_path, [[3, 9]], [[0, 0]])
    for name in ("bare", "lone", "torn", "z"):
        shutil.copy(tmp_path / "masks" / "a.png", tmp_path / "masks" / f"{name}.png")
    for name in ("torn", "z", "unlabelled"):
        picture(tmp_path / "images" / f"{name}.jpg", (1, 2))
    (tmp_path / "masks" / "torn.png").write_bytes(b"torn")
    told: list[tuple[str, str]] = []
    source = TwoChannelSource(
        tmp_path / "masks",
        tmp_path / "images",
        tmp_path / "c.json",
        tell=lambda code, error: told.append((code, Path(error.where).name)),
    )
    assert told == [("image-missing", "bare.png"), ("image-missing", "lone.png"), ("png-unreadable", "torn.png")]
    assert {code for code, _ in told} <= {*RULES}
    assert [image.image_id for image in source.images] == ["a", "z"]
    for image in source.images:
        assert source.segmentation(image).segment_ids.tolist() == [[3, 9]]
        assert source.picture(image).shape == (1, 2, 3)
