"""Faults that tests plant into the clean datasets of `damaged_datasets`, with the codes of their issues."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from segkit.formats import coco, png
from tests.helpers.damaged_datasets import GRASS, SKY, Broken, noise, scene

Change = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], object]
PANOPTIC_FAULTS: list[tuple[str, str, Callable[[Broken], None]]] = []


def fault(*expected: str) -> Callable[[Callable[[Broken], None]], Callable[[Broken], None]]:
    """Plants that must give exactly these codes."""

    def keep(plant: Callable[[Broken], None]) -> Callable[[Broken], None]:
        PANOPTIC_FAULTS.append((plant.__name__, " ".join(sorted(expected)), plant))
        return plant

    return keep


def in_json(*expected: str) -> Callable[[Callable[[dict, dict, dict], None]], None]:
    """Plants in the JSON, given its content, its first annotation and that one's segment of the person."""

    def keep(change: Callable[[dict, dict, dict], None]) -> None:
        def plant(data: Broken) -> None:
            content = data.load()
            annotation = content["annotations"][0]
            change(content, annotation, annotation["segments_info"][0])
            data.store(content)

        PANOPTIC_FAULTS.append((change.__name__, " ".join(sorted(expected)), plant))

    return keep


def repaint(data: Broken, old: int, new: int) -> None:
    ids = scene().segment_ids.copy()
    ids[ids == old] = new
    coco.write_png(data.png(), ids)


@fault("json-unreadable")
def json_missing(data: Broken) -> None:
    data.json_path.unlink()


@fault("json-unreadable")
def json_cut(data: Broken) -> None:
    data.json_path.write_bytes(data.json_path.read_bytes()[:100])


@fault("json-unreadable")
def json_deep(data: Broken) -> None:
    data.json_path.write_text('{"images": ' + "[" * 200_000)


@fault("json-kind")
def json_of_instances(data: Broken) -> None:
    data.store({"images": [], "categories": [], "annotations": [{"bbox": [0, 0, 1, 1], "segmentation": []}]})


@fault("json-kind")
def json_of_results(data: Broken) -> None:
    data.store([{"image_id": 1}])


@fault("type-wrong")
def json_is_a_number(data: Broken) -> None:
    data.store(3)


@fault("dataset-empty", "image-orphan", "png-orphan")
def no_images(data: Broken) -> None:
    data.store({**data.load(), "images": [], "annotations": []})


@fault("folder-missing")
def no_masks(data: Broken) -> None:
    shutil.rmtree(data.masks)


@fault("folder-missing")
def no_pictures(data: Broken) -> None:
    shutil.rmtree(data.images)


@in_json("key-missing", "image-orphan", "png-orphan")
def no_tables(content: dict, annotation: dict, info: dict) -> None:
    del content["images"], content["annotations"]


@in_json("key-missing")
def no_category_id(content: dict, annotation: dict, info: dict) -> None:
    del info["category_id"]


@in_json("key-missing")
def no_height(content: dict, annotation: dict, info: dict) -> None:
    del content["images"][0]["height"]


@in_json("key-missing")
def no_isthing(content: dict, annotation: dict, info: dict) -> None:
    del content["categories"][0]["isthing"]


@in_json("key-missing")
def no_area(content: dict, annotation: dict, info: dict) -> None:
    del info["area"]


@in_json("key-missing-optional")
def no_box(content: dict, annotation: dict, info: dict) -> None:
    del info["bbox"]


@in_json("key-missing")
def no_iscrowd(content: dict, annotation: dict, info: dict) -> None:
    del info["iscrowd"]


@in_json("type-wrong")
def area_is_text(content: dict, annotation: dict, info: dict) -> None:
    info["area"] = "9"


@in_json("type-wrong")
def segments_are_text(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"] = "none"


@in_json("type-wrong")
def a_segment_is_null(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append(None)


@in_json("number-not-finite")
def area_is_nan(content: dict, annotation: dict, info: dict) -> None:
    info["area"] = float("nan")


@in_json("number-not-finite")
def box_is_infinite(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][2] = float("inf")


@in_json("name-outside", "image-orphan")
def picture_climbs_out(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["file_name"] = "../images/0.png"


@in_json("name-outside", "png-orphan")
def png_climbs_out(content: dict, annotation: dict, info: dict) -> None:
    annotation["file_name"] = "../masks/0.png"


@in_json("category-id-twice")
def a_category_id_twice(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 1, "name": "other", "isthing": 1})


@in_json("category-name-twice")
def a_category_name_twice(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 99, "name": "cat", "isthing": 1})


@in_json("isthing-invalid")
def isthing_is_two(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["isthing"] = 2


@in_json("categories-empty", "category-unknown")
def no_categories(content: dict, annotation: dict, info: dict) -> None:
    content["categories"] = []


@in_json("category-unknown")
def category_unknown(content: dict, annotation: dict, info: dict) -> None:
    info["category_id"] = 4


@in_json("type-wrong")
def a_color_is_a_name(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["color"] = "red"


@in_json("type-wrong")
def a_color_of_floats(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["color"] = [1.0, 2.0, 3.0]


@in_json("type-wrong")
def a_category_name_is_no_unicode(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["name"] = "\ud800"


@in_json("type-wrong")
def a_category_id_of_70_bits(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 2**70, "name": "more", "isthing": 1})


@in_json("type-wrong")
def a_score_is_text(content: dict, annotation: dict, info: dict) -> None:
    info["score"] = "high"


@in_json("number-not-finite")
def a_score_is_nan(content: dict, annotation: dict, info: dict) -> None:
    info["score"] = float("nan")


@in_json("number-not-finite")
def nan_in_a_key_of_nobody(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["license"] = float("nan")


@in_json("annotations-empty", "image-without-annotation", "png-orphan")
def no_annotation_at_all(content: dict, annotation: dict, info: dict) -> None:
    content["annotations"] = []


@in_json("image-id-twice")
def an_image_id_twice(content: dict, annotation: dict, info: dict) -> None:
    content["images"].append({**content["images"][0]})


@in_json("file-name-twice", "image-orphan")
def a_file_name_twice(content: dict, annotation: dict, info: dict) -> None:
    content["images"][1]["file_name"] = content["images"][0]["file_name"]


@in_json("file-name-twice", "image-orphan")
def a_file_name_twice_in_two_spellings(content: dict, annotation: dict, info: dict) -> None:
    content["images"][1]["file_name"] = f".//{content['images'][0]['file_name']}"


@in_json("name-outside", "image-orphan")
def a_file_name_is_no_unicode(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["file_name"] = "\ud800.png"


@in_json("size-invalid")
def height_is_zero(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["height"] = 0


@in_json("size-differs")
def size_in_json_differs(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["width"] += 1


@fault("size-differs")
def picture_of_another_size(data: Broken) -> None:
    Image.fromarray(noise(0)[:, :-1]).save(data.image_path())


@fault("image-missing")
def picture_missing(data: Broken) -> None:
    data.image_path().unlink()


@fault("image-missing")
def picture_is_a_dead_link(data: Broken) -> None:
    data.image_path().unlink()
    data.image_path().symlink_to("nowhere")


@fault("image-unreadable")
def picture_is_a_loop_of_links(data: Broken) -> None:
    data.image_path().unlink()
    data.image_path().symlink_to(data.image_path().name)


@fault("image-orphan")
def picture_without_entry(data: Broken) -> None:
    Image.fromarray(noise(99)).save(data.images / "more.png")


@fault("image-unreadable")
def picture_cut(data: Broken) -> None:
    data.image_path().write_bytes(data.image_path().read_bytes()[:-40])


@fault("image-unreadable")
def picture_is_text(data: Broken) -> None:
    data.image_path().write_text("no image")


@fault("image-unreadable")
def picture_is_a_pipe(data: Broken) -> None:
    data.image_path().unlink()
    os.mkfifo(data.image_path())


@fault("image-unreadable")
def picture_is_empty(data: Broken) -> None:
    data.image_path().write_bytes(b"")


@fault("image-unreadable")
def picture_with_a_wrong_byte(data: Broken) -> None:
    content = bytearray(data.image_path().read_bytes())
    content[len(content) // 2] ^= 1
    data.image_path().write_bytes(content)


@fault("image-bomb")
def picture_is_a_bomb(data: Broken) -> None:
    data.image_path().write_bytes(bomb())


@fault("png-unreadable")
def png_is_a_bomb(data: Broken) -> None:
    data.png().write_bytes(bomb())


def bomb() -> bytes:
    """A PNG that claims 60000 x 60000 pixels in some bytes."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turn(data: Broken, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(noise(0)).save(data.image_path(), exif=exif)


@fault("image-turned")
def picture_upside_down(data: Broken) -> None:
    turn(data, 3)


@fault("image-turned", "size-differs")
def picture_on_its_side(data: Broken) -> None:
    turn(data, 6)


@fault("image-twice")
def a_picture_twice(data: Broken) -> None:
    Image.fromarray(noise(0)).save(data.image_path(1), compress_level=1)


@in_json("image-without-annotation", "png-orphan")
def an_image_without_annotation(content: dict, annotation: dict, info: dict) -> None:
    del content["annotations"][0]


@in_json("annotation-without-image", "image-orphan")
def an_annotation_without_image(content: dict, annotation: dict, info: dict) -> None:
    del content["images"][0]


@in_json("annotation-twice")
def an_annotation_twice(content: dict, annotation: dict, info: dict) -> None:
    content["annotations"].append(annotation)


@in_json("annotation-twice", "category-unknown", "segment-id-void", "box-outside")
def another_annotation_of_the_same_png(content: dict, annotation: dict, info: dict) -> None:
    """Only what the PNG says is not looked at again."""
    other = json.loads(json.dumps(annotation))
    other["file_name"] = f"./{other['file_name']}"
    other["segments_info"][0]["category_id"] = 99
    other["segments_info"][1]["id"] = 0
    other["segments_info"][2]["bbox"] = [6, 0, 3, 3]
    content["annotations"].append(other)


@in_json("png-name-twice", "png-orphan")
def a_png_twice(content: dict, annotation: dict, info: dict) -> None:
    annotation["file_name"] = "1.png"


@fault("png-missing")
def png_missing(data: Broken) -> None:
    data.png().unlink()


@fault("png-orphan")
def png_without_entry(data: Broken) -> None:
    shutil.copy(data.png(), data.masks / "more.png")


@fault("png-unreadable")
def png_cut(data: Broken) -> None:
    data.png().write_bytes(data.png().read_bytes()[:-20])


@fault("png-not-rgb")
def png_is_grey(data: Broken) -> None:
    png.write(data.png(), np.ones((6, 8), dtype=np.uint8))


@fault("png-not-rgb")
def png_has_alpha(data: Broken) -> None:
    Image.open(data.png()).convert("RGBA").save(data.png())


@fault("png-not-rgb")
def png_has_a_palette(data: Broken) -> None:
    Image.open(data.png()).quantize(256).save(data.png())


@fault("size-differs", "area-wrong", "box-wrong")
def png_of_another_size(data: Broken) -> None:
    coco.write_png(data.png(), scene().segment_ids[:, :-1])


@fault("all-void", "segment-not-in-png")
def png_all_void(data: Broken) -> None:
    coco.write_png(data.png(), np.zeros((6, 8), dtype=np.int32))


@fault("all-void")
def all_void(data: Broken) -> None:
    png_all_void(data)
    content = data.load()
    content["annotations"][0]["segments_info"] = []
    data.store(content)


@in_json("png-id-unknown")
def id_of_the_png_alone(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].remove(info)


@in_json("segment-not-in-png")
def id_of_the_json_alone(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 8})


@in_json("segment-empty")
def an_empty_segment(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 8, "area": 0})


@fault("segment-tiny")
def one_pixel(data: Broken) -> None:
    ids = scene().segment_ids.copy()
    ids[5, 0] = 8
    coco.write_png(data.png(), ids)
    content = data.load()
    segment = {"id": 8, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 5, 1, 1]}
    content["annotations"][0]["segments_info"].append(segment)
    data.store(content)


@in_json("segment-id-void")
def id_is_void(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 0})


@in_json("segment-id-range")
def id_is_too_large(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 256**3})


@in_json("segment-id-range")
def id_is_negative(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": -7})


@in_json("segment-id-twice")
def a_segment_id_twice(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append(info)


@in_json("iscrowd-invalid")
def iscrowd_is_two(content: dict, annotation: dict, info: dict) -> None:
    info["iscrowd"] = 2


@in_json("crowd-of-stuff")
def a_crowd_of_stuff(content: dict, annotation: dict, info: dict) -> None:
    next(i for i in annotation["segments_info"] if i["id"] == SKY)["iscrowd"] = 1


@in_json("stuff-split")
def stuff_in_two_segments(content: dict, annotation: dict, info: dict) -> None:
    next(i for i in annotation["segments_info"] if i["id"] == GRASS)["category_id"] = 10


@in_json("area-wrong")
def area_is_off_by_one(content: dict, annotation: dict, info: dict) -> None:
    info["area"] += 1


@in_json("box-wrong")
def box_is_off_by_one(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][0] += 1


@in_json("box-outside")
def box_beyond_the_image(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"] = [6, 0, 3, 3]


@in_json("box-invalid")
def box_of_three_numbers(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"].pop()


@in_json("box-invalid")
def box_of_negative_width(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][2] = -3


# Of the content of the JSON, the person's annotation in image 0 (a polygon) and the crowd's (run lengths).
INSTANCES_FAULTS: list[tuple[str, Change]] = [
    ("annotation-id-twice", lambda c, p, q: p.update(id=q["id"])),
    ("annotation-without-image", lambda c, p, q: p.update(image_id=77)),
    ("key-missing", lambda c, p, q: p.pop("id")),
    ("key-missing", lambda c, p, q: p.pop("segmentation")),
    ("key-missing", lambda c, p, q: p.pop("area")),
    ("key-missing", lambda c, p, q: p.pop("bbox")),
    ("key-missing-optional", lambda c, p, q: p.pop("iscrowd")),
    ("type-wrong", lambda c, p, q: c["categories"][0].update(color="red")),
    ("number-not-finite", lambda c, p, q: p.update(foo=float("-inf"))),
    ("type-wrong", lambda c, p, q: c["annotations"].append(3)),
    ("type-wrong", lambda c, p, q: p.update(segmentation="none")),
    ("category-unknown", lambda c, p, q: p.update(category_id=2)),
    ("category-id-twice", lambda c, p, q: c["categories"].append({"id": 1, "name": "more"})),
    ("iscrowd-invalid", lambda c, p, q: p.update(iscrowd="1")),
    ("area-wrong", lambda c, p, q: p.update(area=18)),
    ("area-wrong", lambda c, p, q: p.update(area=-9)),
    ("number-not-finite", lambda c, p, q: p.update(area=float("nan"))),
    ("box-wrong", lambda c, p, q: p.update(bbox=[1, 1, 3, 5])),
    ("box-outside", lambda c, p, q: p.update(bbox=[1, 1, 30, 3])),
    ("box-invalid", lambda c, p, q: p.update(bbox=[1, 1, 3])),
    ("box-invalid", lambda c, p, q: p.update(bbox=[1, 1, -3, 3])),
    ("polygon-short", lambda c, p, q: p["segmentation"].append([1, 1, 2, 2])),
    ("polygon-short", lambda c, p, q: p.update(segmentation=[[1, 1, 2, 2]])),
    ("mask-invalid", lambda c, p, q: p["segmentation"].append([1, 1, 2, 2, 3, 3, 4])),
    ("mask-invalid", lambda c, p, q: p["segmentation"].append([1, 1, 2, 2, 3, float("inf")])),
    ("mask-invalid", lambda c, p, q: p["segmentation"].append([1, 1, 2, 2, 3])),
    ("mask-invalid", lambda c, p, q: p["segmentation"].append([1, 1, 2, 2, 3, 1e9])),
    ("mask-invalid", lambda c, p, q: p.update(segmentation=[])),
    ("mask-invalid", lambda c, p, q: q["segmentation"].update(counts=[1, 2])),
    ("rle-size", lambda c, p, q: q["segmentation"].update(size=[8, 6])),
    ("mask-twice", lambda c, p, q: c["annotations"].append({**p, "id": 99})),
    ("segment-empty", lambda c, p, q: q.update(segmentation={"size": [6, 8], "counts": [48]})),
    ("size-differs", lambda c, p, q: c["images"].append({**c["images"].pop(5), "height": 7})),
    ("image-orphan", lambda c, p, q: (c["images"].pop(5), c["annotations"].pop(), c["annotations"].pop())),
]
