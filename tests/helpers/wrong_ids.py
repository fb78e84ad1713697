"""Repeated and mistyped ids in the tables of COCO JSONs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Content = dict[str, Any]
UNCERTAIN = ", but the table has a damaged, repeated or unused id, which may be the one that is meant"
IMAGE_1 = "image_id 1 is not in `images`" + UNCERTAIN
CATEGORY_1 = "category_id 1 is not in `categories`" + UNCERTAIN

# The change; the lines of a panoptic repair, and of an instances repair.
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
        ["left unchanged 1 of the images: no annotation has the image_id 1" + UNCERTAIN],
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
            "left unchanged 1 of the images: no annotation has the image_id 424242" + UNCERTAIN,
        ],
        [f"left unchanged 2 of the annotations: {IMAGE_1}"],
    ),
    "an_unused_category_and_an_unknown_one": (
        lambda c: c["categories"].append({"id": 99, "name": "more", "isthing": 1}) or c["categories"].pop(0),
        [f"left unchanged 6 of the segments: {CATEGORY_1}"],
        [f"left unchanged 6 of the annotations: {CATEGORY_1}"],
    ),
}  # fmt: skip
