"""Ids that a table has twice, or that are mistyped there: a repair drops nothing for them, and names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import coco
from tests.helpers.damaged_datasets import IMAGES, PERSON, Broken, instances, panoptic

Content = dict[str, Any]
MAYBE = ", but the table has a damaged, repeated or unused id, which may be the one that is meant"
IMAGE_1 = "image_id 1 is not in `images`" + MAYBE
CATEGORY_1 = "category_id 1 is not in `categories`" + MAYBE

# What is planted; what is told of a panoptic dataset, and of instances.
WRONG_IDS: dict[str, tuple[Callable[[Content], object], list[str], list[str]]] = {
    "two_images_of_one_id": (
        lambda c: c["images"][1].update(id=0),
        [f"left unchanged 1 of the annotations: {IMAGE_1}"],
        [
            f"left unchanged 2 of the annotations: {IMAGE_1}",
            "left unchanged 1 of the images: with their masks, because it is uncertain whether entry or image file has "
            "the size of the masks",
        ],
    ),
    "two_categories_of_one_id": (
        lambda c: c["categories"][0].update(id=3),
        [f"left unchanged 6 of the segments: {CATEGORY_1}"],
        [f"left unchanged 6 of the annotations: {CATEGORY_1}"],
    ),
    "annotations_of_another_image": (
        lambda c: [a.update(image_id=0) for a in c["annotations"] if a["image_id"] == 1],
        ["left unchanged 1 of the images: no annotation has the image_id 1" + MAYBE],
        [],
    ),
    "a_mistyped_category_id": (
        lambda c: c["categories"][0].update(id=-1),
        [f"left unchanged 6 of the segments: {CATEGORY_1}"],
        [f"left unchanged 6 of the annotations: {CATEGORY_1}"],
    ),
    "a_mistyped_image_id": (
        lambda c: c["images"][1].update(id=424242),
        [
            f"left unchanged 1 of the annotations: {IMAGE_1}",
            "left unchanged 1 of the images: no annotation has the image_id 424242" + MAYBE,
        ],
        [f"left unchanged 2 of the annotations: {IMAGE_1}"],
    ),
    "a_category_that_nobody_has_beside_one_that_is_unknown": (
        lambda c: c["categories"].append({"id": 99, "name": "more", "isthing": 1}) or c["categories"].pop(0),
        [f"left unchanged 6 of the segments: {CATEGORY_1}"],
        [f"left unchanged 6 of the annotations: {CATEGORY_1}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_IDS)
def test_a_wrong_id_in_a_table_costs_no_pixel_of_a_panoptic_dataset(tmp_path: Path, fault: str) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    WRONG_IDS[fault][0](content)
    data.store(content)
    copy, masks, told = repair_panoptic(*data, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in range(IMAGES)] == [data.png(i).read_bytes() for i in range(IMAGES)]
    assert told == WRONG_IDS[fault][1]


@pytest.mark.parametrize("fault", WRONG_IDS)
def test_a_wrong_id_in_a_table_costs_no_annotation_of_instances(tmp_path: Path, fault: str) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    WRONG_IDS[fault][0](content)
    data.store(content)
    copy, told = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert told == WRONG_IDS[fault][2]


def test_images_without_annotation_are_dropped_by_id_where_all_others_have_one(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["images"] += [{**content["images"][0], "id": i, "file_name": f"{i}.png"} for i in range(20, 27)]
    data.store(content)
    copy, masks, told = repair_panoptic(*data, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load()["images"] == content["images"][:IMAGES]
    assert told == ["dropped 7 of the images: no annotation has the image_id 20, 21, 22, 23, 24 and 2 more"]


def test_the_png_of_another_image_of_one_segment_is_left(tmp_path: Path) -> None:
    """3 x 3 pixels at (1, 1) and 2 x 2 at (6, 4): neither the area nor the box of the one is near the other's."""
    data = panoptic(tmp_path / "data")
    content = data.load()
    for index, (top, left, side) in enumerate([(1, 1, 3), (4, 6, 2)]):
        ids = np.zeros((6, 8), dtype=np.int32)
        ids[top : top + side, left : left + side] = PERSON
        coco.write_png(data.png(1 - index), ids)
        person = content["annotations"][index]["segments_info"][0]
        content["annotations"][index]["segments_info"] = [
            {**person, "area": side * side, "bbox": [left, top, side, side]}
        ]
    data.store(content)
    copy, masks, told = repair_panoptic(*data, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in (0, 1)] == [data.png(i).read_bytes() for i in (0, 1)]
    assert [line.split(":")[0] for line in told] == ["left unchanged 2 of the images"]
