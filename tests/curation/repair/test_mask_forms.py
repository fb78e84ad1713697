"""Repeated annotation ids and masks in the forms of other tools: a repaired copy has no issues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segkit.curation.checks.instances import check_instances
from segkit.curation.repair import repair_instances
from tests.helpers.damaged_datasets import Broken, instances

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]


def repair(data: Broken, folder: Path) -> tuple[Broken, list[str]]:
    copy, lines = repair_instances(data.json_path, data.images, folder, map)
    assert check_instances(copy, data.images, map) == []
    return Broken(copy, data.masks, data.images), lines


@pytest.mark.parametrize(
    ("segmentation", "line"),
    [
        (SQUARE[0], "corrected 1 of the masks: each was one flat list of x and y"),
        ([SQUARE], "corrected 1 of the masks: each was polygons inside of too many lists"),
        ([[1, 1], [4, 1], [4, 4], [1, 4]], "corrected 1 of the masks: each was lists of points [x, y]"),
    ],
)
def test_polygons_in_other_forms_become_cocos(tmp_path: Path, segmentation: Any, line: str) -> None:
    data = instances(tmp_path / "data")
    clean, broken = data.load(), data.load()
    broken["annotations"][0]["segmentation"] = segmentation
    data.store(broken)
    copy, lines = repair(data, tmp_path / "copy")
    assert copy.load() == clean
    assert lines == [line]


def test_run_lengths_without_size_get_that_of_the_image(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    broken = data.load()
    runs = [28, 2, 4, 2, 4, 2, 4, 2]  # the crowd: columns 4 to 7, rows 4 and 5
    broken["annotations"][1]["segmentation"] = runs
    data.store(broken)
    copy, lines = repair(data, tmp_path / "copy")
    assert copy.load()["annotations"][1]["segmentation"] == {"size": [6, 8], "counts": runs}
    assert lines == ["corrected 1 of the masks: each was a list of run lengths without size"]


def test_run_lengths_without_size_do_not_decide_the_size_of_an_image(tmp_path: Path) -> None:
    """They fit 6 x 8 and 8 x 6."""
    data = instances(tmp_path / "data")
    broken = data.load()
    broken["images"][0].update(height=8, width=6)
    broken["annotations"][:2] = [{**broken["annotations"][1], "segmentation": [28, 2, 4, 2, 4, 2, 4, 2]}]
    data.store(broken)
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert Broken(copy, data.masks, data.images).load() == broken
    assert [line.split(":")[0] for line in lines] == ["left unchanged 1 of the images"]


def test_annotations_with_an_empty_segmentation_are_dropped(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    broken = data.load()
    for annotation, empty in zip(broken["annotations"], [[], {}], strict=False):
        annotation["segmentation"] = empty
    data.store(broken)
    copy, lines = repair(data, tmp_path / "copy")
    assert copy.load()["annotations"] == broken["annotations"][2:]
    assert lines == ["dropped 2 of the annotations: their segmentation is empty"]


@pytest.mark.parametrize("kind", [int, str, float])
def test_ids_of_earlier_annotations_are_replaced_by_free_ones(tmp_path: Path, kind: type) -> None:
    """Ids that start again in each image: the first image keeps its ids, also if they are text."""
    data = instances(tmp_path / "data")
    broken = data.load()
    for index, annotation in enumerate(broken["annotations"]):
        annotation["id"] = kind(1 + index % 2)
    data.store(broken)
    copy, lines = repair(data, tmp_path / "copy")
    ids = [annotation.pop("id") for annotation in broken["annotations"]]
    repaired = copy.load()["annotations"]
    assert [annotation.pop("id") for annotation in repaired] == [*range(1, len(ids) + 1)]
    assert repaired == broken["annotations"]
    assert lines == [f"renumbered {len(ids) - 2} of the annotations: an earlier annotation has their id"]
