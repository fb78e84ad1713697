"""Repeated and mistyped ids in a table: a repair drops nothing because of them, and reports them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import coco
from tests.helpers.damaged_datasets import IMAGES, PERSON, Broken, instances, panoptic
from tests.helpers.wrong_ids import WRONG_IDS


@pytest.mark.parametrize("error_name", WRONG_IDS)
def test_a_wrong_id_in_a_table_changes_no_pixel_of_a_panoptic_dataset(tmp_path: Path, error_name: str) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    WRONG_IDS[error_name][0](content)
    data.store(content)
    copy, masks, lines = repair_panoptic(*data, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in range(IMAGES)] == [data.png(i).read_bytes() for i in range(IMAGES)]
    assert lines == WRONG_IDS[error_name][1]


@pytest.mark.parametrize("error_name", WRONG_IDS)
def test_a_wrong_id_in_a_table_changes_no_annotation_of_instances(tmp_path: Path, error_name: str) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    WRONG_IDS[error_name][0](content)
    data.store(content)
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert lines == WRONG_IDS[error_name][2]


def test_images_without_annotation_are_dropped_if_all_others_have_one(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["images"] += [{**content["images"][0], "id": i, "file_name": f"{i}.png"} for i in range(20, 27)]
    data.store(content)
    copy, masks, lines = repair_panoptic(*data, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load()["images"] == content["images"][:IMAGES]
    assert lines == ["dropped 7 of the images: no annotation has the image_id 20, 21, 22, 23, 24 and 2 more"]


def test_the_png_of_another_image_with_one_segment_stays_unchanged(tmp_path: Path) -> None:
    """3 x 3 pixels at (1, 1) and 2 x 2 at (6, 4): neither areas nor boxes are close."""
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
    copy, masks, lines = repair_panoptic(*data, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in (0, 1)] == [data.png(i).read_bytes() for i in (0, 1)]
    assert [line.split(":")[0] for line in lines] == ["left unchanged 2 of the images"]
