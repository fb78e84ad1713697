"""Every kind of fault, planted into a clean dataset, is found, and nothing else."""

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
from tests.helpers.coco_faults import PANOPTIC_FAULTS
from tests.helpers.damaged_datasets import CROWD, IMAGES, PERSON, Broken, junk, noise, panoptic


def check(data: Broken, others: dict[bytes, str] | None = None) -> IssueList:
    return check_panoptic(data.json_path, data.masks, data.images, map, others or {})


def codes(data: Broken) -> set[str]:
    return {issue.code for issue in check(data)}


@pytest.mark.parametrize(("expected", "plant"), [pytest.param(f[1], f[2], id=f[0]) for f in PANOPTIC_FAULTS])
def test_a_planted_fault_is_found_and_nothing_else(
    tmp_path: Path, expected: str, plant: Callable[[Broken], None]
) -> None:
    data = panoptic(tmp_path)
    plant(data)
    assert " ".join(sorted(codes(data))) == expected


def test_what_the_reader_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else is wrong: training would begin with it."""

    def raise_issue(path: Path) -> None:
        raise DatasetError("expected rain", where=f"{path}, image 3")

    data = panoptic(tmp_path)
    monkeypatch.setattr(coco, "read_panoptic", raise_issue)
    told = [(f.code, f.place, f.message) for f in check(data)]
    assert told == [("annotation-unreadable", f"{data.json_path}, image 3", "expected rain")]
    data.image_path().unlink()
    assert codes(data) == {"image-missing"}


def test_messages_say_what_is_wrong(tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    content = data.load()
    content["images"][0]["file_name"] = "\ud800.png"
    data.store(content)
    for index, make in enumerate((os.mkdir, os.mkfifo)):
        data.png(index).unlink()
        make(data.png(index))
    told = {issue.code: issue.message for issue in check(data)}
    assert told["name-outside"] == r"expected `file_name` to be Unicode, got '\ud800.png'"
    assert told["png-unreadable"] == "this is a folder or a device, no file"


def test_a_clean_dataset_has_no_finding(tmp_path: Path) -> None:
    assert check(panoptic(tmp_path)) == []


def test_many_faults_are_all_told_with_their_places(tmp_path: Path) -> None:
    """Area wrong in image 0, PNG of image 1 cut off, picture of 2 missing, box wrong in 3: four findings, in order."""
    data = panoptic(tmp_path)
    content = data.load()
    content["annotations"][0]["segments_info"][0]["area"] = 1e6
    content["annotations"][3]["segments_info"][1]["bbox"] = [0, 0, 1, 1]
    data.store(content)
    data.png(1).write_bytes(data.png(1).read_bytes()[:50])
    data.image_path(2).unlink()
    told = [(issue.code, issue.place) for issue in check(data)]
    assert told == [
        ("area-wrong", f"{data.json_path}, image 0, segment {PERSON}"),
        ("png-unreadable", f"{data.png(1)}, image 1"),
        ("image-missing", f"{data.image_path(2)}, image 2"),
        ("box-wrong", f"{data.json_path}, image 3, segment {CROWD}"),
    ]
    parallel = check_panoptic(data.json_path, data.masks, data.images, lambda work, items: ordered_map(work, items, 2))
    assert parallel == check(data)


def test_images_shared_with_another_split(tmp_path: Path) -> None:
    """Pixels count, not bytes; a picture of one colour says nothing."""
    data, other = panoptic(tmp_path / "a"), tmp_path / "other"
    other.mkdir()
    Image.fromarray(noise(2)).save(other / "again.png", compress_level=1)
    Image.fromarray(noise(50)).save(other / "its own.png")
    for folder in (other, data.images):
        Image.fromarray(np.full((6, 8, 3), 7, dtype=np.uint8)).save(folder / "0.png")
    found = check(data, image_files.digest_split(other, data.images, map))
    assert [(f.code, f.place) for f in found] == [("image-shared", str(data.image_path(2)))]
    assert "again.png" in found[0].message
    (tmp_path / "other.json").write_text(json.dumps({"images": [{"file_name": "3.png"}]}))
    found = check(data, image_files.digest_split(tmp_path / "other.json", data.images, map))
    assert [(f.code, f.place) for f in found] == [("image-shared", str(data.image_path(3)))]


def test_junk_anywhere_is_told_and_raises_nothing(tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    content = data.load()
    content["annotations"] = content["annotations"][:1]
    content["images"] = [{**content["images"][0], "height": 6, "width": 8}]
    content["categories"] = content["categories"][:2]
    for image in range(1, IMAGES):
        data.png(image).unlink()
        data.image_path(image).unlink()
    for broken in junk(content):
        data.store(broken)
        for issue in check(data):
            json.dumps(issue.to_json()).encode()
            assert issue.place.isprintable()


def test_rules_are_whole() -> None:
    planted = {code for _name, expected, _plant in PANOPTIC_FAULTS for code in expected.split()}
    assert len(planted) >= 40
    assert all(rule.severity in ("error", "warning", "note") for rule in RULES.values())
    assert all(rule.meaning and rule.remedy for rule in RULES.values())
