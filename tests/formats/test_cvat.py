"""CVAT's archives: unpacked, they are read again with the segments that were written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats.base import DatasetImage
from segkit.formats.coco import PanopticPredictionsReader
from segkit.formats.voc import CvatMasksWriter, VOCReader
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers import predicted_run
from tests.helpers.predicted_run import CATEGORIES, IMAGES, build_map


def convert(tmp_path: Path, to: str) -> Path:
    root = predicted_run.write_run(tmp_path / "run")
    command = ["data", "convert", "--from", "run", "--root", root, "--images", tmp_path / "images", "--to", to]
    assert main([*map(str, [*command, "--output", tmp_path / "out", "--set", "min_score=null"])]) == 0
    return tmp_path / "out"


def unpack(archive: Path, folder: Path) -> set[str]:
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
        return {*content.namelist()}


def test_the_panoptic_archive_has_cvats_names_and_all_segments(tmp_path: Path) -> None:
    output = convert(tmp_path, "cvat-panoptic")
    names = unpack(output / "cvat_panoptic.zip", tmp_path / "unpacked")
    folder = "annotations/panoptic_default"
    assert names == {f"{folder}.json", f"{folder}/eins.png", f"{folder}/zwei ö.png"}
    path = tmp_path / "unpacked" / folder
    reader = PanopticPredictionsReader(path.with_suffix(".json"), path, tmp_path / "images")
    assert (reader.images, reader.categories) == (IMAGES, CATEGORIES)
    assert np.array_equal(reader.read_segmentation(reader.images[0]).segment_ids, build_map())
    assert not reader.read_segmentation(reader.images[1]).segments
    assert '"score"' not in json.dumps(json.loads(path.with_suffix(".json").read_text()))


def test_the_mask_archive_keeps_parts_holes_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = convert(tmp_path, "cvat-masks")
    assert "which classes are stuff cannot be held" in capsys.readouterr().out
    root = tmp_path / "unpacked"
    unpack(output / "cvat_masks.zip", root)
    assert (root / "labelmap.txt").read_text().splitlines() == [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "Zelle ü 细胞:200,10,10::",
        "water:10,10,200::",
        "dot:10,200,10::",
    ]
    (output / "JPEGImages").rename(root / "JPEGImages")
    reader = VOCReader(root, "default")
    assert [c.name for c in reader.categories.things] == [c.name for c in CATEGORIES.categories]
    first, second = (reader.read_segmentation(image) for image in reader.images)
    names = {reader.categories[s.category_id].name: first.segment_ids == s.segment_id for s in first.segments}
    expected = {"Zelle ü 细胞": 5, "dot": 6, "water": 9, "background": 0}
    assert {*names} == {*expected}
    assert all(np.array_equal(names[name], build_map() == segment_id) for name, segment_id in expected.items())
    assert [reader.categories[s.category_id].name for s in second.segments] == ["background"]


def test_more_objects_than_a_palette_has_keep_apart(tmp_path: Path) -> None:
    """300 objects of one pixel, whose class has the colour of the background, and a class named background."""
    categories = CategorySet([Category(1, "cell", True, (0, 0, 0)), Category(2, "background", False, (9, 9, 9))])
    ids = np.arange(1, 303, dtype=np.int32).reshape(2, 151)
    segments = tuple(Segment(i, 1 if i <= 300 else 2, i <= 300, 1) for i in range(1, 303))
    with CvatMasksWriter(tmp_path, categories) as writer:
        losses = writer.add(DatasetImage("x", "x.png", (2, 151)), PanopticSegmentation(ids, segments))
    assert losses == []
    predicted_run.png.write(tmp_path / "JPEGImages/x.png", np.zeros((2, 151, 3), np.uint8))
    reader = VOCReader(tmp_path, "default")
    segments = reader.read_segmentation(reader.images[0]).segments
    assert [s.area_px for s in segments if s.isthing] == [1] * 300
    assert [s.area_px for s in segments if not s.isthing] == [2]


@pytest.mark.parametrize("name", ["a:b", "#a", " a", "a\nb", ""])
def test_names_that_labelmap_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="without ':' and '#'"):
        CvatMasksWriter(tmp_path, CategorySet([Category(1, name, True, (1, 2, 3))]))
