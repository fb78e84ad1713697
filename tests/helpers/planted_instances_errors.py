"""Errors to plant in a clean instances JSON, with the code of the issue that a check must report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], object]

# Each change gets the content of the JSON and two annotations of image 0: the person (a polygon) and the crowd (RLE).
INSTANCES_ERRORS: list[tuple[str, Change]] = [
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
    ("mask-form", lambda c, p, q: p.update(segmentation=p["segmentation"][0])),
    ("mask-form", lambda c, p, q: p.update(segmentation=[p["segmentation"]])),
    ("mask-form", lambda c, p, q: p.update(segmentation=[[1, 1], [4, 1], [4, 4], [1, 4]])),
    ("mask-form", lambda c, p, q: q.update(segmentation=[28, 2, 4, 2, 4, 2, 4, 2])),
    ("segment-empty", lambda c, p, q: p.update(segmentation=[])),
    ("coordinates-relative", lambda c, p, q: p.update(segmentation=[[0.1, 0.2, 0.5, 0.2, 0.5, 1, 0, 1]])),
    ("crowds-only", lambda c, p, q: [a.update(iscrowd=1) for a in c["annotations"]]),
    ("class-empty", lambda c, p, q: c["categories"].append({"id": 99, "name": "dog"})),
    ("mask-invalid", lambda c, p, q: q["segmentation"].update(counts=[1, 2])),
    ("rle-size", lambda c, p, q: q["segmentation"].update(size=[8, 6])),
    ("mask-twice", lambda c, p, q: c["annotations"].append({**p, "id": 99})),
    ("segment-empty", lambda c, p, q: q.update(segmentation={"size": [6, 8], "counts": [48]})),
    ("size-differs", lambda c, p, q: c["images"].append({**c["images"].pop(5), "height": 7})),
    ("image-orphan", lambda c, p, q: (c["images"].pop(5), c["annotations"].pop(), c["annotations"].pop())),
]
