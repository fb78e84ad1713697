"""Every kind of fault of an instances JSON, planted into a clean dataset, is found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances, measure_mask
from segkit.curation.issues import IssueList
from segkit.formats import coco
from segkit.utils.errors import DatasetError
from tests.helpers.coco_faults import INSTANCES_FAULTS, Change
from tests.helpers.damaged_datasets import Broken, instances, junk, noise, panoptic


def check(data: Broken) -> IssueList:
    return check_instances(data.json_path, data.images, map)


BEYOND_REPAIR: list[tuple[str, Change]] = [
    ("isthing-invalid", lambda c, p, q: c["categories"][0].update(isthing=2)),
    ("annotations-empty", lambda c, p, q: c["annotations"].clear()),
    ("area-wrong", lambda c, p, q: q.update(area=-8)),
]


@pytest.mark.parametrize(("expected", "change"), INSTANCES_FAULTS + BEYOND_REPAIR)
def test_a_planted_fault_is_found_and_nothing_else(tmp_path: Path, expected: str, change: Change) -> None:
    data = instances(tmp_path)
    content = data.load()
    change(content, content["annotations"][0], content["annotations"][1])
    if expected == "size-differs":  # its run lengths then differ too
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 5]
    data.store(content)
    assert {issue.code for issue in check(data)} == {expected}


def test_faults_of_two_kinds(tmp_path: Path) -> None:
    """A polygon of 20 x 1 pixels from column 4 to 24 of 8, with its own area and box: both mask and box reach out."""
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][0].update(segmentation=[[4, 1, 24, 1, 24, 2, 4, 2]], area=20, bbox=[4, 1, 20, 1])
    content["annotations"][2].update(segmentation=[[50, 50, 60, 50, 60, 60]], area=50, bbox=[50, 50, 10, 10])
    data.store(content)
    told = [(issue.code, issue.place.split(", ")[1]) for issue in check(data)]
    assert told == [
        ("box-outside", "image 0"),
        ("mask-outside", "image 0"),
        ("box-outside", "image 1"),
        ("mask-outside", "image 1"),
        ("segment-empty", "image 1"),
    ]


def test_a_clean_dataset_and_a_panoptic_one(tmp_path: Path) -> None:
    assert check(instances(tmp_path / "a")) == []
    assert [issue.code for issue in check(panoptic(tmp_path / "b"))] == ["json-kind"]


def test_pictures_are_looked_at(tmp_path: Path) -> None:
    data = instances(tmp_path)
    data.image_path(0).write_bytes(b"")
    data.image_path(1).unlink()
    Image.fromarray(noise(3)).save(data.image_path(2))
    assert [issue.code for issue in check(data)] == ["image-unreadable", "image-missing", "image-twice"]


def test_a_file_in_two_spellings(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["images"][5]["file_name"] = "./0.png"
    data.store(content)
    assert [issue.code for issue in check(data)] == ["file-name-twice", "image-orphan"]


def test_a_coordinate_that_is_too_large_is_told_as_that(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2, 3, 1e9]]
    data.store(content)
    assert [f.message for f in check(data)] == [
        "bad segmentation: expected polygons within 1e+06 pixels, got a corner further away"
    ]


def test_what_the_reader_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_issue(path: Path) -> None:
        raise DatasetError("expected rain", where=path)

    data = instances(tmp_path)
    monkeypatch.setattr(coco, "read_instances", raise_issue)
    told = [(f.code, f.place, f.message) for f in check(data)]
    assert told == [("annotation-unreadable", str(data.json_path), "expected rain")]


def test_many_masks_of_one_box(tmp_path: Path) -> None:
    """1000 outlines differ only in their last corner. benchmarks/curation_scaling.py measures the time."""
    data = instances(tmp_path)
    content = data.load()
    person = content["annotations"][0]
    outline = [1, 1, 4, 1, 4, 4, 1, 4] + [1, 2] * 600
    content["annotations"] = [
        {**person, "id": i, "segmentation": [[*outline, 1, 2 - i / 4000]]} for i in range(1, 1001)
    ]
    data.store(content)
    found = check(data)
    assert found == []
    content["annotations"].append({**content["annotations"][7], "id": 9999})
    data.store(content)
    assert [issue.code for issue in check(data)] == ["mask-twice"]


def test_area_and_box_of_pixels_and_of_the_outline_are_both_right() -> None:
    """A triangle of 4 x 4: outline 8; its pixels are those that pycocotools paints."""
    found = measure_mask([[0, 0, 4, 0, 0, 4]], (6, 8))
    assert found.areas == (found.area_px, 8.0)
    assert found.boxes_xyxy[1] == (0, 0, 4, 4)


def test_crowds_of_coco_have_other_areas_and_boxes_short_by_one(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][1].update(area=16, bbox=[4, 4, 3, 1])
    data.store(content)
    assert check(data) == []


def test_junk_anywhere_is_told_and_raises_nothing(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    for table in ("images", "annotations", "categories"):
        content[table] = content[table][:2]
    for broken in junk(content):
        data.store(broken)
        for issue in check(data):
            assert issue.place.isprintable()
