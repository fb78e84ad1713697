"""Errors to plant in a clean panoptic dataset, with the codes of the issues that a check must report."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from segkit.formats import coco, png
from tests.helpers.damaged_datasets import GRASS, SKY, Broken, noise, scene

# (name, codes separated by spaces, function that plants the error)
PANOPTIC_ERRORS: list[tuple[str, str, Callable[[Broken], None]]] = []


def plants(*expected: str) -> Callable[[Callable[[Broken], None]], Callable[[Broken], None]]:
    """Registers a function that plants an error, with the codes of the issues that it must give."""

    def register(plant: Callable[[Broken], None]) -> Callable[[Broken], None]:
        PANOPTIC_ERRORS.append((plant.__name__, " ".join(sorted(expected)), plant))
        return plant

    return register


def plants_in_json(*expected: str) -> Callable[[Callable[[dict, dict, dict], None]], None]:
    """Registers a change of the JSON, given its content, its first annotation, and the segment of the person in it."""

    def register(change: Callable[[dict, dict, dict], None]) -> None:
        def plant(data: Broken) -> None:
            content = data.load()
            annotation = content["annotations"][0]
            change(content, annotation, annotation["segments_info"][0])
            data.store(content)

        PANOPTIC_ERRORS.append((change.__name__, " ".join(sorted(expected)), plant))

    return register


@plants("json-unreadable")
def json_missing(data: Broken) -> None:
    data.json_path.unlink()


@plants("json-unreadable")
def json_cut(data: Broken) -> None:
    data.json_path.write_bytes(data.json_path.read_bytes()[:100])


@plants("json-unreadable")
def json_deep(data: Broken) -> None:
    data.json_path.write_text('{"images": ' + "[" * 200_000)


@plants("json-kind")
def json_of_instances(data: Broken) -> None:
    data.store({"images": [], "categories": [], "annotations": [{"bbox": [0, 0, 1, 1], "segmentation": []}]})


@plants("json-kind")
def json_of_results(data: Broken) -> None:
    data.store([{"image_id": 1}])


@plants("type-wrong")
def json_is_a_number(data: Broken) -> None:
    data.store(3)


@plants("dataset-empty", "image-orphan", "png-orphan")
def no_images(data: Broken) -> None:
    data.store({**data.load(), "images": [], "annotations": []})


@plants("folder-missing")
def no_masks(data: Broken) -> None:
    shutil.rmtree(data.masks)


@plants("folder-missing")
def no_image_folder(data: Broken) -> None:
    shutil.rmtree(data.images)


@plants_in_json("key-missing", "image-orphan", "png-orphan")
def no_tables(content: dict, annotation: dict, info: dict) -> None:
    del content["images"], content["annotations"]


@plants_in_json("key-missing")
def no_category_id(content: dict, annotation: dict, info: dict) -> None:
    del info["category_id"]


@plants_in_json("key-missing")
def no_height(content: dict, annotation: dict, info: dict) -> None:
    del content["images"][0]["height"]


@plants_in_json("key-missing")
def no_isthing(content: dict, annotation: dict, info: dict) -> None:
    del content["categories"][0]["isthing"]


@plants_in_json("key-missing")
def no_area(content: dict, annotation: dict, info: dict) -> None:
    del info["area"]


@plants_in_json("key-missing-optional")
def no_box(content: dict, annotation: dict, info: dict) -> None:
    del info["bbox"]


@plants_in_json("key-missing")
def no_iscrowd(content: dict, annotation: dict, info: dict) -> None:
    del info["iscrowd"]


@plants_in_json("type-wrong")
def area_is_text(content: dict, annotation: dict, info: dict) -> None:
    info["area"] = "9"


@plants_in_json("type-wrong")
def segments_are_text(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"] = "none"


@plants_in_json("type-wrong")
def a_segment_is_null(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append(None)


@plants_in_json("number-not-finite")
def area_is_nan(content: dict, annotation: dict, info: dict) -> None:
    info["area"] = float("nan")


@plants_in_json("number-not-finite")
def box_is_infinite(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][2] = float("inf")


@plants_in_json("name-outside", "image-orphan")
def image_outside_the_folder(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["file_name"] = "../images/0.png"


@plants_in_json("name-outside", "png-orphan")
def png_outside_the_folder(content: dict, annotation: dict, info: dict) -> None:
    annotation["file_name"] = "../masks/0.png"


@plants_in_json("category-id-twice")
def a_category_id_twice(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 1, "name": "other", "isthing": 1})


@plants_in_json("class-empty")
def a_class_without_segment(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 99, "name": "dog", "isthing": 1})


@plants_in_json("crowd-of-stuff", "crowds-only")
def only_crowds(content: dict, annotation: dict, info: dict) -> None:
    for entry in content["annotations"]:
        for segment in entry["segments_info"]:
            segment["iscrowd"] = 1


@plants_in_json("category-name-twice", "class-empty")
def a_category_name_twice(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 99, "name": "cat", "isthing": 1})


@plants_in_json("isthing-invalid")
def isthing_is_two(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["isthing"] = 2


@plants_in_json("categories-empty", "category-unknown")
def no_categories(content: dict, annotation: dict, info: dict) -> None:
    content["categories"] = []


@plants_in_json("category-unknown")
def category_unknown(content: dict, annotation: dict, info: dict) -> None:
    info["category_id"] = 4


@plants_in_json("type-wrong")
def a_color_is_a_name(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["color"] = "red"


@plants_in_json("type-wrong")
def a_color_of_floats(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["color"] = [1.0, 2.0, 3.0]


@plants_in_json("type-wrong")
def a_category_name_is_no_unicode(content: dict, annotation: dict, info: dict) -> None:
    content["categories"][0]["name"] = "\ud800"


@plants_in_json("type-wrong", "class-empty")
def a_category_id_of_70_bits(content: dict, annotation: dict, info: dict) -> None:
    content["categories"].append({"id": 2**70, "name": "more", "isthing": 1})


@plants_in_json("type-wrong")
def a_score_is_text(content: dict, annotation: dict, info: dict) -> None:
    info["score"] = "high"


@plants_in_json("number-not-finite")
def a_score_is_nan(content: dict, annotation: dict, info: dict) -> None:
    info["score"] = float("nan")


@plants_in_json("number-not-finite")
def nan_in_an_unused_key(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["license"] = float("nan")


@plants_in_json("annotations-empty", "image-without-annotation", "png-orphan")
def no_annotation_at_all(content: dict, annotation: dict, info: dict) -> None:
    content["annotations"] = []


@plants_in_json("image-id-twice")
def an_image_id_twice(content: dict, annotation: dict, info: dict) -> None:
    content["images"].append({**content["images"][0]})


@plants_in_json("file-name-twice", "image-orphan")
def a_file_name_twice(content: dict, annotation: dict, info: dict) -> None:
    content["images"][1]["file_name"] = content["images"][0]["file_name"]


@plants_in_json("file-name-twice", "image-orphan")
def a_file_name_twice_in_two_spellings(content: dict, annotation: dict, info: dict) -> None:
    content["images"][1]["file_name"] = f".//{content['images'][0]['file_name']}"


@plants_in_json("name-outside", "image-orphan")
def a_file_name_is_no_unicode(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["file_name"] = "\ud800.png"


@plants_in_json("size-invalid")
def height_is_zero(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["height"] = 0


@plants_in_json("size-differs")
def size_in_json_differs(content: dict, annotation: dict, info: dict) -> None:
    content["images"][0]["width"] += 1


@plants("size-differs")
def image_of_another_size(data: Broken) -> None:
    Image.fromarray(noise(0)[:, :-1]).save(data.image_path())


@plants("image-missing")
def image_missing(data: Broken) -> None:
    data.image_path().unlink()


@plants("image-missing")
def image_is_a_dead_link(data: Broken) -> None:
    data.image_path().unlink()
    data.image_path().symlink_to("nowhere")


@plants("image-unreadable")
def image_is_a_loop_of_links(data: Broken) -> None:
    data.image_path().unlink()
    data.image_path().symlink_to(data.image_path().name)


@plants("image-orphan")
def image_without_entry(data: Broken) -> None:
    Image.fromarray(noise(99)).save(data.images / "more.png")


@plants("image-unreadable")
def image_cut(data: Broken) -> None:
    data.image_path().write_bytes(data.image_path().read_bytes()[:-40])


@plants("image-unreadable")
def image_is_text(data: Broken) -> None:
    data.image_path().write_text("no image")


@plants("image-unreadable")
def image_is_a_pipe(data: Broken) -> None:
    data.image_path().unlink()
    os.mkfifo(data.image_path())


@plants("image-unreadable")
def image_is_empty(data: Broken) -> None:
    data.image_path().write_bytes(b"")


@plants("image-unreadable")
def image_with_a_wrong_byte(data: Broken) -> None:
    content = bytearray(data.image_path().read_bytes())
    content[len(content) // 2] ^= 1
    data.image_path().write_bytes(content)


@plants("image-too-large")
def image_is_a_bomb(data: Broken) -> None:
    data.image_path().write_bytes(build_bomb())


@plants("png-unreadable")
def png_is_a_bomb(data: Broken) -> None:
    data.png().write_bytes(build_bomb())


def build_bomb() -> bytes:
    """A PNG that claims 60000 x 60000 pixels in some bytes."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def save_with_orientation(data: Broken, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(noise(0)).save(data.image_path(), exif=exif)


@plants("image-rotated")
def image_upside_down(data: Broken) -> None:
    save_with_orientation(data, 3)


@plants("image-rotated", "size-differs")
def image_rotated_by_90_degrees(data: Broken) -> None:
    save_with_orientation(data, 6)


@plants("image-twice")
def an_image_file_twice(data: Broken) -> None:
    Image.fromarray(noise(0)).save(data.image_path(1), compress_level=1)


@plants_in_json("image-without-annotation", "png-orphan")
def an_image_without_annotation(content: dict, annotation: dict, info: dict) -> None:
    del content["annotations"][0]


@plants_in_json("annotation-without-image", "image-orphan")
def an_annotation_without_image(content: dict, annotation: dict, info: dict) -> None:
    del content["images"][0]


@plants_in_json("annotation-twice")
def an_annotation_twice(content: dict, annotation: dict, info: dict) -> None:
    content["annotations"].append(annotation)


@plants_in_json("annotation-twice", "category-unknown", "segment-id-void", "box-outside")
def another_annotation_of_the_same_png(content: dict, annotation: dict, info: dict) -> None:
    """The PNG is read for the first annotation only; the JSON of both annotations is checked."""
    other = json.loads(json.dumps(annotation))
    other["file_name"] = f"./{other['file_name']}"
    other["segments_info"][0]["category_id"] = 99
    other["segments_info"][1]["id"] = 0
    other["segments_info"][2]["bbox"] = [6, 0, 3, 3]
    content["annotations"].append(other)


@plants_in_json("png-name-twice", "png-orphan")
def a_png_twice(content: dict, annotation: dict, info: dict) -> None:
    annotation["file_name"] = "1.png"


@plants("png-missing")
def png_missing(data: Broken) -> None:
    data.png().unlink()


@plants("png-orphan")
def png_without_entry(data: Broken) -> None:
    shutil.copy(data.png(), data.masks / "more.png")


@plants("png-unreadable")
def png_cut(data: Broken) -> None:
    data.png().write_bytes(data.png().read_bytes()[:-20])


@plants("png-not-rgb")
def png_is_grey(data: Broken) -> None:
    png.write(data.png(), np.ones((6, 8), dtype=np.uint8))


@plants("png-not-rgb")
def png_has_alpha(data: Broken) -> None:
    Image.open(data.png()).convert("RGBA").save(data.png())


@plants("png-not-rgb")
def png_has_a_palette(data: Broken) -> None:
    Image.open(data.png()).quantize(256).save(data.png())


@plants("size-differs", "area-wrong", "box-wrong")
def png_of_another_size(data: Broken) -> None:
    coco.write_png(data.png(), scene().segment_ids[:, :-1])


@plants("all-void", "segment-not-in-png")
def png_all_void(data: Broken) -> None:
    coco.write_png(data.png(), np.zeros((6, 8), dtype=np.int32))


@plants("all-void")
def all_void(data: Broken) -> None:
    png_all_void(data)
    content = data.load()
    content["annotations"][0]["segments_info"] = []
    data.store(content)


@plants_in_json("png-id-unknown")
def segment_id_in_the_png_only(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].remove(info)


@plants_in_json("segment-not-in-png")
def segment_id_in_the_json_only(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 8})


@plants_in_json("segment-empty")
def an_empty_segment(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 8, "area": 0})


@plants("segment-tiny")
def segment_of_one_pixel(data: Broken) -> None:
    ids = scene().segment_ids.copy()
    ids[5, 0] = 8
    coco.write_png(data.png(), ids)
    content = data.load()
    segment = {"id": 8, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 5, 1, 1]}
    content["annotations"][0]["segments_info"].append(segment)
    data.store(content)


@plants_in_json("segment-id-void")
def id_is_void(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 0})


@plants_in_json("segment-id-range")
def id_is_too_large(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": 256**3})


@plants_in_json("segment-id-range")
def id_is_negative(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append({**info, "id": -7})


@plants_in_json("segment-id-twice")
def a_segment_id_twice(content: dict, annotation: dict, info: dict) -> None:
    annotation["segments_info"].append(info)


@plants_in_json("iscrowd-invalid")
def iscrowd_is_two(content: dict, annotation: dict, info: dict) -> None:
    info["iscrowd"] = 2


@plants_in_json("crowd-of-stuff")
def a_crowd_of_stuff(content: dict, annotation: dict, info: dict) -> None:
    next(i for i in annotation["segments_info"] if i["id"] == SKY)["iscrowd"] = 1


@plants_in_json("stuff-split")
def stuff_in_two_segments(content: dict, annotation: dict, info: dict) -> None:
    next(i for i in annotation["segments_info"] if i["id"] == GRASS)["category_id"] = 10


@plants_in_json("area-wrong")
def area_is_off_by_one(content: dict, annotation: dict, info: dict) -> None:
    info["area"] += 1


@plants_in_json("box-wrong")
def box_is_off_by_one(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][0] += 1


@plants_in_json("box-outside")
def box_beyond_the_image(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"] = [6, 0, 3, 3]


@plants_in_json("box-invalid")
def box_of_three_numbers(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"].pop()


@plants_in_json("box-invalid")
def box_of_negative_width(content: dict, annotation: dict, info: dict) -> None:
    info["bbox"][2] = -3
