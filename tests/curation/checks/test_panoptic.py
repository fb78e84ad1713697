"""Each kind of error, planted in a clean panoptic dataset, is reported, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation import image_files
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.issues import RULES, IssueList
from segkit.formats import coco
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import ordered_map
from tests.helpers.damaged_datasets import CROWD, IMAGES, PERSON, Broken, junk, noise, panoptic
from tests.helpers.planted_panoptic_errors import PANOPTIC_ERRORS


def check(data: Broken, digests: dict[bytes, str] | None = None) -> IssueList:
    return check_panoptic(data.json_path, data.masks, data.images, map, digests or {})


def get_codes(data: Broken) -> set[str]:
    return {issue.code for issue in check(data)}


@pytest.mark.parametrize(
    ("expected", "plant"), [pytest.param(error[1], error[2], id=error[0]) for error in PANOPTIC_ERRORS]
)
def test_each_planted_error_is_reported_and_nothing_else(
    tmp_path: Path, expected: str, plant: Callable[[Broken], None]
) -> None:
    data = panoptic(tmp_path)
    plant(data)
    assert " ".join(sorted(get_codes(data))) == expected


def test_an_error_of_the_reader_is_reported_if_no_other_error_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise training would begin with an unreadable dataset."""

    def raise_issue(path: Path) -> None:
        raise DatasetError("expected rain", where=f"{path}, image 3")

    data = panoptic(tmp_path)
    monkeypatch.setattr(coco, "read_panoptic", raise_issue)
    reported = [(issue.code, issue.place, issue.message) for issue in check(data)]
    assert reported == [("annotation-unreadable", f"{data.json_path}, image 3", "expected rain")]
    data.image_path().unlink()
    assert get_codes(data) == {"image-missing"}


def test_messages_of_invalid_names_and_of_folders_in_place_of_pngs(tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    content = data.load()
    content["images"][0]["file_name"] = "\ud800.png"
    data.store(content)
    for index, make in enumerate((os.mkdir, os.mkfifo)):
        data.png(index).unlink()
        make(data.png(index))
    reported = {issue.code: issue.message for issue in check(data)}
    assert reported["name-outside"] == r"expected `file_name` to be Unicode, got '\ud800.png'"
    assert reported["png-unreadable"] == "this is a folder or a device, no file"


def test_a_clean_dataset_has_no_issue(tmp_path: Path) -> None:
    assert check(panoptic(tmp_path)) == []


def test_all_issues_are_reported_with_their_places_in_order(tmp_path: Path) -> None:
    """Area wrong in image 0, PNG of image 1 cut off, image of 2 missing, box wrong in 3: four issues, in order."""
    data = panoptic(tmp_path)
    content = data.load()
    content["annotations"][0]["segments_info"][0]["area"] = 1e6
    content["annotations"][3]["segments_info"][1]["bbox"] = [0, 0, 1, 1]
    data.store(content)
    data.png(1).write_bytes(data.png(1).read_bytes()[:50])
    data.image_path(2).unlink()
    reported = [(issue.code, issue.place) for issue in check(data)]
    assert reported == [
        ("area-wrong", f"{data.json_path}, image 0, segment {PERSON}"),
        ("png-unreadable", f"{data.png(1)}, image 1"),
        ("image-missing", f"{data.image_path(2)}, image 2"),
        ("box-wrong", f"{data.json_path}, image 3, segment {CROWD}"),
    ]
    parallel_issues = check_panoptic(
        data.json_path, data.masks, data.images, lambda work, items: ordered_map(work, items, 2)
    )
    assert parallel_issues == check(data)


def test_images_shared_with_another_split_are_reported(tmp_path: Path) -> None:
    """Images are compared by pixels, not by bytes. Images of one colour are not compared."""
    data, other = panoptic(tmp_path / "a"), tmp_path / "other"
    other.mkdir()
    Image.fromarray(noise(2)).save(other / "again.png", compress_level=1)
    Image.fromarray(noise(50)).save(other / "its own.png")
    for folder in (other, data.images):
        Image.fromarray(np.full((6, 8, 3), 7, dtype=np.uint8)).save(folder / "0.png")
    issues = check(data, image_files.digest_split(other, data.images, map))
    assert [(issue.code, issue.place) for issue in issues] == [("image-shared", str(data.image_path(2)))]
    assert "again.png" in issues[0].message
    (tmp_path / "other.json").write_text(json.dumps({"images": [{"file_name": "3.png"}]}))
    issues = check(data, image_files.digest_split(tmp_path / "other.json", data.images, map))
    assert [(issue.code, issue.place) for issue in issues] == [("image-shared", str(data.image_path(3)))]


def test_junk_values_are_reported_and_raise_nothing(tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    content = data.load()
    content["annotations"] = content["annotations"][:1]
    content["images"] = [{**content["images"][0], "height": 6, "width": 8}]
    content["categories"] = content["categories"][:2]
    for image in range(1, IMAGES):
        data.png(image).unlink()
        data.image_path(image).unlink()
    for damaged in junk(content):
        data.store(damaged)
        for issue in check(data):
            json.dumps(issue.to_json()).encode()
            assert issue.place.isprintable()


def test_rules_are_complete_and_most_are_planted_here() -> None:
    planted = {code for _name, expected, _plant in PANOPTIC_ERRORS for code in expected.split()}
    assert len(planted) >= 40
    assert all(rule.severity in ("error", "warning", "note") for rule in RULES.values())
    assert all(rule.meaning and rule.remedy for rule in RULES.values())
