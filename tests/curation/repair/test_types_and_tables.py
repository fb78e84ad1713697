"""Values of another type, damaged tables, PNGs of other images: a repair converts values and drops nothing valid."""

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


def change_all(table: str, key: str, kind: Callable[[Any], Any]) -> Callable[[Content], None]:
    """Change a value in all entries of a table, or in all segments."""

    def change(content: Content) -> None:
        segments = [info for a in content["annotations"] for info in a.get("segments_info", ())]
        for entry in segments if table == "segments" else content[table]:
            if key in entry:
                entry[key] = kind(entry[key])

    return change


SHARED_KEYS = [(t, k, kind) for kind in (str, float) for t, k in [
    ("images", "height"), ("images", "width"), ("categories", "id"), ("annotations", "image_id"),
    ("annotations", "iscrowd"), ("annotations", "category_id"),
]]  # fmt: skip
PANOPTIC_KEYS = [(t, k, kind) for kind in (str, float) for t, k in [
    ("segments", "id"), ("segments", "category_id"), ("segments", "iscrowd"), ("categories", "isthing"),
]]  # fmt: skip
INSTANCES_KEYS = [("annotations", "id", str), ("annotations", "id", float), ("images", "id", float)]


@pytest.mark.parametrize(("table", "key", "kind"), [*SHARED_KEYS, *PANOPTIC_KEYS, ("images", "id", float)])
def test_values_of_another_type_in_a_panoptic_json_are_converted(tmp_path: Path, table: str, key: str, kind) -> None:
    data = panoptic(tmp_path / "data")
    clean = data.load()
    broken = data.load()
    change_all(table, key, kind)(broken)
    data.store(broken)
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load() == clean
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == {
        path.name: path.read_bytes() for path in data.masks.iterdir()
    }
    assert lines == []


@pytest.mark.parametrize(("table", "key", "kind"), [*SHARED_KEYS, *INSTANCES_KEYS])
def test_values_of_another_type_in_an_instances_json_are_converted(tmp_path: Path, table: str, key: str, kind) -> None:
    data = instances(tmp_path / "data")
    clean = data.load()
    broken = data.load()
    change_all(table, key, kind)(broken)
    data.store(broken)
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == clean
    assert lines == []


def test_image_ids_may_be_text_and_annotations_are_converted_to_it(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    change_all("images", "id", str)(content)
    data.store(content)
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert [a["image_id"] for a in Broken(copy, masks, data.images).load()["annotations"]] == [*map(str, range(IMAGES))]
    assert check_panoptic(copy, masks, data.images, map) == []
    assert lines == []


DAMAGE: dict[str, Callable[[Content], object]] = {
    "no_categories": lambda c: c.update(categories=[]),
    "a_category_without_id": lambda c: c["categories"][0].pop("id"),
    "a_category_that_is_text": lambda c: c["categories"].__setitem__(0, "person"),
    "categories_of_another_dataset": lambda c: change_all("categories", "id", lambda i: i + 1000)(c),
    "no_images": lambda c: c.update(images=[]),
    "an_image_without_id": lambda c: c["images"][0].pop("id"),
    "images_of_another_dataset": lambda c: change_all("images", "id", lambda i: i + 1000)(c),
    "image_ids_that_are_names": lambda c: change_all("images", "id", "{:012}".format)(c),
    "image_ids_that_are_lists": lambda c: change_all("annotations", "image_id", lambda i: [i])(c),
    "category_ids_that_are_names": lambda c: change_all("annotations", "category_id", "number {}".format)(c),
    "category_ids_of_segments_that_are_names": lambda c: change_all("segments", "category_id", "number {}".format)(c),
    "category_ids_that_are_halves": lambda c: change_all("segments", "category_id", lambda i: i + 0.5)(c),
    "segment_ids_that_are_names": lambda c: change_all("segments", "id", "number {}".format)(c),
    "segments_that_are_ids": lambda c: [a.update(segments_info=[1, 2]) for a in c["annotations"] if "area" not in a],
    "no_segments": lambda c: [a.update(segments_info=[]) for a in c["annotations"] if "segments_info" in a],
    "no_masks": lambda c: change_all("annotations", "segmentation", lambda _: [])(c),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_unknown_values_stay_unchanged(tmp_path: Path, damage: str) -> None:
    """Segment ids could be recovered from areas and boxes, so that boxes are removed in that case."""
    data, content = panoptic(tmp_path / "data"), panoptic(tmp_path / "clean").load()
    DAMAGE[damage](content)
    if damage == "segment_ids_that_are_names":
        change_all("segments", "bbox", lambda _: None)(content)
    data.store(content)
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load() == content
    assert [copied.png(i).read_bytes() for i in range(IMAGES)] == [data.png(i).read_bytes() for i in range(IMAGES)]
    assert {line.split()[0] for line in lines} <= {"left"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_unknown_values_of_instances_stay_unchanged(tmp_path: Path, damage: str) -> None:
    data, content = instances(tmp_path / "data"), instances(tmp_path / "clean").load()
    DAMAGE[damage](content)
    data.store(content)
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert {line.split()[0] for line in lines} <= {"left"}


@pytest.mark.parametrize("offset", [0, 1])
def test_pngs_of_other_images_stay_unchanged_with_their_segments(tmp_path: Path, offset: int) -> None:
    """The PNGs of images 0 and 1 are swapped. Their areas and boxes are not close; offset 1 gives them distinct ids.
    In image 2 a box is wrong, and repaired."""
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
    os.replace(data.png(0), data.masks / "swap")
    os.replace(data.png(1), data.png(0))
    os.replace(data.masks / "swap", data.png(1))
    content["annotations"][2]["segments_info"][0]["bbox"] = [0, 0, 1, 1]
    data.store(content)
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load()["annotations"][:2] == content["annotations"][:2]
    assert copied.load()["annotations"][2]["segments_info"][0]["bbox"] == [1, 1, 3, 3]
    assert [copied.png(i).read_bytes() for i in (0, 1)] == [data.png(i).read_bytes() for i in (0, 1)]
    assert lines == [
        "left unchanged 2 of the images: segments and PNG do not fit each other: is it the PNG of another image?"
    ]


def test_a_png_of_another_size_than_the_image_stays_unchanged(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    coco.write_png(data.png(), scene().segment_ids[:, :-1])
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    assert Broken(copy, masks, data.images).load() == data.load()
    assert [line.split(":")[0] for line in lines] == ["left unchanged 1 of the images"]


def test_segments_of_a_category_that_is_thing_and_stuff_are_not_joined(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["annotations"][0]["segments_info"][1].update(category_id=1, iscrowd=0)
    content["categories"].append({"id": 1, "name": "wall", "isthing": 0})
    data.store(content)
    for entries in (content["categories"], content["categories"][::-1]):
        data.store({**content, "categories": entries})
        copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / str(entries[0]), map)
        assert Broken(copy, masks, data.images).load()["annotations"] == content["annotations"]
        assert lines == []


def test_of_two_segments_with_one_id_the_one_with_the_box_of_a_free_id_gets_that_id(tmp_path: Path) -> None:
    """In image 0 the crowd has the person's id, but its own area and box. In image 1 its area is wrong too. In image 2
    both have the same area and box: which one has the pixels would be a guess."""
    data = panoptic(tmp_path / "data")
    clean, content = data.load(), data.load()
    for annotation in content["annotations"][:3]:
        annotation["segments_info"][1]["id"] = PERSON
    content["annotations"][1]["segments_info"][1]["area"] = 1
    person = content["annotations"][2]["segments_info"][0]
    content["annotations"][2]["segments_info"][1].update(area=person["area"], bbox=person["bbox"])
    data.store(content)
    copy, masks, lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)
    copied = Broken(copy, masks, data.images)
    assert copied.load()["annotations"] == [clean["annotations"][0], *content["annotations"][1:]]
    assert [copied.png(i).read_bytes() for i in range(3)] == [data.png(i).read_bytes() for i in range(3)]
    assert [line.split(":")[0] for line in lines] == ["left unchanged 2 of the images"]


def test_no_mask_is_cut_off_in_an_image_with_two_sizes(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    content["images"].append({**content["images"][0], "height": 2})
    data.store(content)
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == content
    assert lines == [
        "left unchanged 1 of the images: with their masks, because it is uncertain whether entry or image file has the "
        "size of the masks"
    ]


def test_everything_that_is_dropped_is_reported(tmp_path: Path) -> None:
    """Two processes report the same as one."""
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
    lines = repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", map)[2]
    assert sorted(lines) == [
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
    lines_of_two_processes = repair_panoptic(
        data.json_path, data.masks, data.images, tmp_path / "two", lambda work, items: ordered_map(work, items, 2)
    )[2]
    assert lines_of_two_processes == lines


def test_everything_that_is_dropped_of_instances_is_reported(tmp_path: Path) -> None:
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
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert {f.code for f in check_instances(copy, data.images, map)} == set()
    assert sorted(lines) == [
        "cut off 1 of the masks: they reach beyond the image",
        "dropped 1 of the annotations: category_id 99 is not in `categories`",
        "dropped 1 of the annotations: each is a copy of an earlier one",
        "dropped 1 of the annotations: image_id 99 is not in `images`",
        "dropped 1 of the annotations: none of their polygons has three points",
        "dropped 1 of the annotations: their masks have no pixel in the image",
        "dropped 1 of the polygons: they have fewer than three points",
    ]


@pytest.mark.parametrize("value", ["17", 17.0, 17])
def test_integers_of_other_types_are_parsed(value: object) -> None:
    assert parse_integer(value) == 17


@pytest.mark.parametrize(
    "value", ["017", " 17", "17.0", "+17", "-0", "\u0661", "", "9" * 5000, 17.5, 1e400, True, None]
)
def test_other_values_are_not_integers(value: object) -> None:
    assert parse_integer(value) is None


def test_an_id_that_may_mean_two_ids_stays_unchanged() -> None:
    ids = IdTable(frozenset([17, "17"]))
    assert [ids.correct({"id": i}, "id")["id"] for i in (17, "17", 17.0)] == [17, "17", 17.0]
    assert type(ids.correct({"id": 17.0}, "id")["id"]) is float
    assert [ids.certainly_lacks(i) for i in (18, "18", 17, 18.0, None, [])] == [True, True, False, False, False, False]
    assert not IdTable(frozenset(["a"])).certainly_lacks(18)
