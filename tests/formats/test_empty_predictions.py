"""A run that has found nothing, in every format: the images are listed, and nothing is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats import coco, png
from segkit.formats.registry import WRITERS
from segkit.structures import Category, CategorySet, PanopticSegmentation

CATEGORIES = CategorySet([Category(7, "road", False, (9, 9, 9)), Category(26, "car", True, (9, 200, 9))])
NAMES = ("aachen_000000_000019_leftImg8bit.png", "aachen_000000_000020_leftImg8bit.png")
SIZE_HW = (4, 6)
NEED_VOLUMES_OR_VIDEOS = {"decathlon", "vipseg"}


@pytest.mark.parametrize("name", sorted({*WRITERS} - NEED_VOLUMES_OR_VIDEOS))
def test_nothing_is_written_as_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"id": i, "file_name": n, "height": SIZE_HW[0], "width": SIZE_HW[1]} for i, n in enumerate(NAMES, 1)]
    with coco.PanopticWriter(tmp_path / "run/panoptic.json", tmp_path / "run/panoptic", CATEGORIES) as writer:
        for entry in entries:
            png.write(tmp_path / "images" / entry["file_name"], np.zeros((*SIZE_HW, 3), np.uint8))
            writer.add(entry["id"], entry["file_name"], PanopticSegmentation(np.zeros(SIZE_HW, np.int32), ()))
    coco.write_instances(tmp_path / "run/instances.json", entries, [], CATEGORIES)
    words = ["data", "convert", "--from", "run", "--root", tmp_path / "run", "--images", tmp_path / "images"]
    assert main([*map(str, [*words, "--to", name, "--output", tmp_path / "out"])]) == 0, capsys.readouterr().err
    assert "left out" not in capsys.readouterr().out
    assert any(path.is_file() for path in (tmp_path / "out").rglob("*"))
