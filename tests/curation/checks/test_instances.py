"""Each kind of error, planted in a clean instances JSON, is reported, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances, measure_mask
from segkit.curation.issues import IssueList
from segkit.formats import coco
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import Broken, instances, junk, noise, panoptic
from tests.helpers.planted_instances_errors import INSTANCES_ERRORS, Change


def check(data: Broken) -> IssueList:
    return check_instances(data.json_path, data.images, map)


OTHER_ERRORS: list[tuple[str, Change]] = [
    ("isthing-invalid", lambda c, p, q: c["categories"][0].update(isthing=2)),
    ("annotations-empty", lambda c, p, q: c["annotations"].clear()),
    ("area-wrong", lambda c, p, q: q.update(area=-8)),
]


@pytest.mark.parametrize(("expected", "change"), INSTANCES_ERRORS + OTHER_ERRORS)
def test_each_planted_error_is_reported_and_nothing_else(tmp_path: Path, expected: str, change: Change) -> None:
    data = instances(tmp_path)
    content = data.load()
    change(content, content["annotations"][0], content["annotations"][1])
    if expected == "size-differs":  # its run lengths would have a wrong size too
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 5]
    data.store(content)
    assert {issue.code for issue in check(data)} == {expected}


def test_masks_and_boxes_outside_the_image_are_both_reported(tmp_path: Path) -> None:
    """A polygon of 20 x 1 pixels from column 4 to 24 of 8, with the matching area and box."""
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][0].update(segmentation=[[4, 1, 24, 1, 24, 2, 4, 2]], area=20, bbox=[4, 1, 20, 1])
    content["annotations"][2].update(segmentation=[[50, 50, 60, 50, 60, 60]], area=50, bbox=[50, 50, 10, 10])
    data.store(content)
    reported = [(issue.code, issue.place.split(", ")[1]) for issue in check(data)]
    assert reported == [
        ("box-outside", "image 0"),
        ("mask-outside", "image 0"),
        ("box-outside", "image 1"),
        ("mask-outside", "image 1"),
        ("segment-empty", "image 1"),
    ]


def test_a_clean_dataset_has_no_issue_and_a_panoptic_json_is_rejected(tmp_path: Path) -> None:
    assert check(instances(tmp_path / "a")) == []
    assert [issue.code for issue in check(panoptic(tmp_path / "b"))] == ["json-kind"]


def test_damaged_missing_and_duplicate_image_files_are_reported(tmp_path: Path) -> None:
    data = instances(tmp_path)
    data.image_path(0).write_bytes(b"")
    data.image_path(1).unlink()
    Image.fromarray(noise(3)).save(data.image_path(2))
    assert [issue.code for issue in check(data)] == ["image-unreadable", "image-missing", "image-twice"]


def test_a_file_name_with_two_spellings_is_reported(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["images"][5]["file_name"] = "./0.png"
    data.store(content)
    assert [issue.code for issue in check(data)] == ["file-name-twice", "image-orphan"]


def test_the_message_says_that_a_coordinate_is_too_large(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2, 3, 1e9]]
    data.store(content)
    assert [issue.message for issue in check(data)] == [
        "bad segmentation: expected polygons within 1e+06 pixels, got a corner further away"
    ]


def test_an_error_of_the_reader_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_issue(path: Path) -> None:
        raise DatasetError("expected rain", where=path)

    data = instances(tmp_path)
    monkeypatch.setattr(coco, "read_instances", raise_issue)
    reported = [(issue.code, issue.place, issue.message) for issue in check(data)]
    assert reported == [("annotation-unreadable", str(data.json_path), "expected rain")]


def test_duplicates_are_found_among_many_masks_with_the_same_box(tmp_path: Path) -> None:
    """1000 outlines differ only in their last corner. benchmarks/curation_scaling.py measures the time."""
    data = instances(tmp_path)
    content = data.load()
    person = content["annotations"][0]
    outline = [1, 1, 4, 1, 4, 4, 1, 4] + [1, 2] * 600
    content["annotations"] = [
        {**person, "id": i, "segmentation": [[*outline, 1, 2 - i / 4000]]} for i in range(1, 1001)
    ]
    data.store(content)
    content["categories"].pop()  # no annotation is a cat
    data.store(content)
    assert check(data) == []
    content["annotations"].append({**content["annotations"][7], "id": 9999})
    data.store(content)
    assert [issue.code for issue in check(data)] == ["mask-twice"]


def test_area_and_box_may_be_computed_from_pixels_or_from_the_outline() -> None:
    """A triangle of 4 x 4: the outline has an area of 8; the pixels are those that pycocotools paints."""
    measures = measure_mask([[0, 0, 4, 0, 0, 4]], (6, 8))
    assert measures.areas == (measures.area_px, 8.0)
    assert measures.boxes_xyxy[1] == (0, 0, 4, 4)


def test_areas_and_boxes_of_crowds_as_in_coco_are_accepted(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    content["annotations"][1].update(area=16, bbox=[4, 4, 3, 1])
    data.store(content)
    assert check(data) == []


def test_junk_values_are_reported_and_raise_nothing(tmp_path: Path) -> None:
    data = instances(tmp_path)
    content = data.load()
    for table in ("images", "annotations", "categories"):
        content[table] = content[table][:2]
    for broken in junk(content):
        data.store(broken)
        for issue in check(data):
            assert issue.place.isprintable()
