"""Slips of type, damaged tables and PNGs of other images: a repair converts what is known and drops nothing sound."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.curation.repair.ids import IdTable, parse_integer
from segkit.formats import coco
from segkit.utils.process_pool import ordered_map
from tests.helpers.damaged_datasets import CROWD, GRASS, IMAGES, PERSON, SKY, Broken, instances, panoptic, scene

Content = dict[str, Any]


def each(table: str, key: str, kind: Callable[[Any], Any]) -> Callable[[Content], None]:
    """A slip in all entries of a table, or in all segments."""

    def change(content: Content) -> None:
        segments = [info for a in content["annotations"] for info in a.get("segments_info", ())]
        for entry in segments if table == "segments" else content[table]:
            if key in entry:
                entry[key] = kind(entry[key])

    return change


SLIPS = [(t, k, kind) for kind in (str, float) for t, k in [
    ("images", "height"), ("images", "width"), ("categories", "id"), ("annotations", "image_id"),
    ("annotations", "iscrowd"), ("annotations", "category_id"),
]]  # fmt: skip
IN_PANOPTIC = [(t, k, kind) for kind in (str, float) for t, k in [
    ("segments", "id"), ("segments", "category_id"), ("segments", "iscrowd"), ("categories", "isthing"),
]]  # fmt: skip
IN_INSTANCES = [("annotations", "id", str), ("annotations", "id", float), ("images", "id", float)]


@pytest.mark.parametrize(("table", "key", "kind"), [*SLIPS, *IN_PANOPTIC, ("images", "id", float)])
def test_slips_of_a_panoptic_json_are_corrected(tmp_path: Path, table: str, key: str, kind) -> None:
    data = panoptic(tmp_path / "data")
    clean = data.load()
    broken = data.load()
    each(table, key, kind)(broken)
    data.store(broken)
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load() == clean
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == {
        path.name: path.read_bytes() for path in data.masks.iterdir()
    }
    assert told == []


@pytest.mark.parametrize(("table", "key", "kind"), [*SLIPS, *IN_INSTANCES])
def test_slips_of_an_instances_json_are_corrected(tmp_path: Path, table: str, key: str, kind) -> None:
    data = instances(tmp_path / "data")
    clean = data.load()
    broken = data.load()
    each(table, key, kind)(broken)
    data.store(broken)
    copy, told = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == clean
    assert told == []


def test_image_ids_as_text_are_ids_and_the_annotations_get_them(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    each("images", "id", str)(content)
    data.store(content)
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert [a["image_id"] for a in Broken(copy, masks, data.images).load()["annotations"]] == [*map(str, range(IMAGES))]
    assert check_panoptic(copy, masks, data.images, map) == []
    assert told == []


DAMAGE: dict[str, Callable[[Content], object]] = {
    "no_categories": lambda c: c.update(categories=[]),
    "a_category_without_id": lambda c: c["categories"][0].pop("id"),
    "a_category_that_is_text": lambda c: c["categories"].__setitem__(0, "person"),
    "categories_of_another_dataset": lambda c: each("categories", "id", lambda i: i + 1000)(c),
    "no_images": lambda c: c.update(images=[]),
    "an_image_without_id": lambda c: c["images"][0].pop("id"),
    "images_of_another_dataset": lambda c: each("images", "id", lambda i: i + 1000)(c),
    "image_ids_that_are_names": lambda c: each("images", "id", "{:012}".format)(c),
    "image_ids_that_are_lists": lambda c: each("annotations", "image_id", lambda i: [i])(c),
    "category_ids_that_are_names": lambda c: each("annotations", "category_id", "number {}".format)(c),
    "category_ids_of_segments_that_are_names": lambda c: each("segments", "category_id", "number {}".format)(c),
    "category_ids_that_are_halves": lambda c: each("segments", "category_id", lambda i: i + 0.5)(c),
    "segment_ids_that_are_names": lambda c: each("segments", "id", "number {}".format)(c),
    "segments_that_are_ids": lambda c: [a.update(segments_info=[1, 2]) for a in c["annotations"] if "area" not in a],
    "no_segments": lambda c: [a.update(segments_info=[]) for a in c["annotations"] if "segments_info" in a],
    "no_masks": lambda c: each("annotations", "segmentation", lambda _: [])(c),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_known_stays(tmp_path: Path, damage: str) -> None:
    """Boxes and areas tell which segment is which, so that ids which are names are found: boxes are taken out there."""
    data, content = panoptic(tmp_path / "data"), panoptic(tmp_path / "clean").load()
    DAMAGE[damage](content)
    if damage == "segment_ids_that_are_names":
        each("segments", "bbox", lambda _: None)(content)
    data.store(content)
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in range(IMAGES)] == [data.png(i).read_bytes() for i in range(IMAGES)]
    assert {line.split()[0] for line in told} <= {"left"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_known_of_instances_stays(tmp_path: Path, damage: str) -> None:
    data, content = instances(tmp_path / "data"), instances(tmp_path / "clean").load()
    DAMAGE[damage](content)
    data.store(content)
    copy, told = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert {line.split()[0] for line in told} <= {"left"}


@pytest.mark.parametrize("offset", [0, 1])
def test_pngs_of_other_images_are_left_with_their_segments(tmp_path: Path, offset: int) -> None:
    """The PNGs of images 0 and 1 are swapped: no area and no box of the one is near those of the other, with or without
    ids of their own. In image 2 a box is off, and mended."""
    ids = np.zeros((6, 8), dtype=np.int32)
    ids[5, :4], ids[:2, :2], ids[3:5, 4:], ids[2, 6:] = SKY, CROWD, GRASS, PERSON
    ids[ids > 0] += offset
    data = panoptic(tmp_path / "data")
    content = data.load()
    boxes = {PERSON: [6, 2, 2, 1], CROWD: [0, 0, 2, 2], SKY: [0, 5, 4, 1], GRASS: [4, 3, 4, 2]}
    for info in content["annotations"][1]["segments_info"]:
        box = boxes[info["id"]]
        info.update(id=info["id"] + offset, bbox=box, area=box[2] * box[3])
    coco.write_png(data.png(1), ids)
    data.store(content)
    assert check_panoptic(*data, map) == []
    os.replace(data.png(0), data.masks / "kept")
    os.replace(data.png(1), data.png(0))
    os.replace(data.masks / "kept", data.png(1))
    content["annotations"][2]["segments_info"][0]["bbox"] = [0, 0, 1, 1]
    data.store(content)
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load()["annotations"][:2] == content["annotations"][:2]
    assert copied.load()["annotations"][2]["segments_info"][0]["bbox"] == [1, 1, 3, 3]
    assert [copied.png(i).read_bytes() for i in (0, 1)] == [data.png(i).read_bytes() for i in (0, 1)]
    assert told == [
        "left unchanged 2 of the images: segments and PNG do not fit each other: is it the PNG of another image?"
    ]


def test_a_png_of_another_size_than_the_picture_is_left(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    coco.write_png(data.png(), scene().segment_ids[:, :-1])
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load() == data.load()
    assert [line.split(":")[0] for line in told] == ["left unchanged 1 of the images"]


def test_of_a_category_that_is_thing_and_stuff_nothing_is_joined(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["annotations"][0]["segments_info"][1].update(category_id=1, iscrowd=0)
    content["categories"].append({"id": 1, "name": "wall", "isthing": 0})
    data.store(content)
    for entries in (content["categories"], content["categories"][::-1]):
        data.store({**content, "categories": entries})
        copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / str(entries[0]), map)
        assert Broken(copy, masks, data.images).load()["annotations"] == content["annotations"]
        assert told == []


def test_of_two_segments_of_one_id_the_one_with_the_box_of_another_gets_that(tmp_path: Path) -> None:
    """In image 0 the crowd has the person's id: its area and box are still its own. In image 1 its area is gone, too;
    in image 2 both say the same area and box: whose the pixels are would be a guess."""
    data = panoptic(tmp_path / "data")
    clean, content = data.load(), data.load()
    for annotation in content["annotations"][:3]:
        annotation["segments_info"][1]["id"] = PERSON
    content["annotations"][1]["segments_info"][1]["area"] = 1
    person = content["annotations"][2]["segments_info"][0]
    content["annotations"][2]["segments_info"][1].update(area=person["area"], bbox=person["bbox"])
    data.store(content)
    copy, masks, told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load()["annotations"] == [clean["annotations"][0], *content["annotations"][1:]]
    assert [copied.png(i).read_bytes() for i in range(3)] == [data.png(i).read_bytes() for i in range(3)]
    assert [line.split(":")[0] for line in told] == ["left unchanged 2 of the images"]


def test_of_an_image_with_two_sizes_no_mask_is_cut_off(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    content["images"].append({**content["images"][0], "height": 2})
    data.store(content)
    copy, told = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert told == [
        "left unchanged 1 of the images: with their masks, because it is uncertain whether entry or image file has the "
        "size of the masks"
    ]


def test_all_that_is_dropped_is_told(tmp_path: Path) -> None:
    """By several processes as by one."""
    data = panoptic(tmp_path / "a")
    content = data.load()
    first, second, third = (content["annotations"][i]["segments_info"] for i in range(3))
    first[0]["category_id"] = 99
    first[3]["category_id"] = 10
    second.append({**second[0], "id": 8})
    second.append(None)
    third.remove(third[0])
    third.append(third[0])
    content["annotations"].append({**content["annotations"][4], "image_id": 77})
    content["annotations"].append(content["annotations"][3])
    content["images"].append(content["images"][1])
    data.store(content)
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(data.masks / "more.png")
    told = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)[2]
    assert sorted(told) == [
        "dropped 1 of the annotations: each is a copy of an earlier one",
        "dropped 1 of the annotations: image_id 77 is not in `images`",
        "dropped 1 of the images: each is a copy of an earlier one",
        "dropped 1 of the segments: category_id 99 is not in `categories`",
        "dropped 1 of the segments: each is a copy of an earlier one",
        "dropped 1 of the segments: their PNG has no pixel of them",
        "dropped 1 of the segments: they are not JSON objects",
        "joined 1 of the segments: their image has an earlier segment of the same stuff",
        "left out 1 of the PNGs: no remaining annotation names them",
        "made void 1 of the PNG ids: no segment has them",
    ]
    in_two = repair_panoptic(
        data.json_path, data.masks, data.images, tmp_path / "two", lambda work, items: ordered_map(work, items, 2)
    )[2]
    assert in_two == told


def test_all_that_is_dropped_of_instances_is_told(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    a = content["annotations"]
    a[0]["segmentation"].append([1, 1, 2, 2])
    a[2]["segmentation"] = [[1, 1, 2, 2]]
    a[4].update(segmentation=[[4, 1, 24, 1, 24, 2, 4, 2]])
    a[6].update(segmentation=[[50, 50, 60, 50, 60, 60]])
    a[8].update(category_id=99)
    a[10].update(image_id=99)
    a.append(a[1])
    data.store(content)
    copy, told = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert {f.code for f in check_instances(copy, data.images, map)} == set()
    assert sorted(told) == [
        "cut off 1 of the masks: they reach beyond the image",
        "dropped 1 of the annotations: category_id 99 is not in `categories`",
        "dropped 1 of the annotations: each is a copy of an earlier one",
        "dropped 1 of the annotations: image_id 99 is not in `images`",
        "dropped 1 of the annotations: none of their polygons has three points",
        "dropped 1 of the annotations: their masks have no pixel in the image",
        "dropped 1 of the polygons: they have fewer than three points",
    ]


@pytest.mark.parametrize("value", ["17", 17.0, 17])
def test_an_integer_written_otherwise(value: object) -> None:
    assert parse_integer(value) == 17


@pytest.mark.parametrize(
    "value", ["017", " 17", "17.0", "+17", "-0", "\u0661", "", "9" * 5000, 17.5, 1e400, True, None]
)
def test_what_is_no_integer(value: object) -> None:
    assert parse_integer(value) is None


def test_an_id_that_may_be_two_stays() -> None:
    ids = IdTable(frozenset([17, "17"]))
    assert [ids.correct({"id": i}, "id")["id"] for i in (17, "17", 17.0)] == [17, "17", 17.0]
    assert type(ids.correct({"id": 17.0}, "id")["id"]) is float
    assert [ids.certainly_lacks(i) for i in (18, "18", 17, 18.0, None, [])] == [True, True, False, False, False, False]
    assert not IdTable(frozenset(["a"])).certainly_lacks(18)
