"""Counts of a dataset, by hand, and the commands that show a dataset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.curation.stats import count_dataset
from segkit.report.dataset_stats import draw_dataset_stats
from segkit.structures import CategorySet, PanopticSegmentation
from tests.helpers.damaged_datasets import IMAGES, instances
from tests.helpers.one_image import CATEGORIES, write_panoptic


def test_counts_of_one_image(tmp_path: Path) -> None:
    """GROUND_TRUTH has 6 pixels: a cat of 2, a crowd of cats of 1, sky of 2, 1 void."""
    stats = count_dataset(write_panoptic(tmp_path))
    assert (stats["images"], stats["sizes"], stats["pixels"]) == (1, {"2 x 3": 1}, 6)
    assert stats["void_share"] == pytest.approx(1 / 6)
    assert stats["segments_per_image"]["median"] == 2
    assert stats["instances_per_image"]["most"] == 1
    cat, sky = stats["classes"]["cat"], stats["classes"]["sky"]
    assert (cat["images"], cat["segments"], cat["crowds"], cat["pixels"]) == (1, 1, 1, 3)
    assert cat["share"] == pytest.approx(0.5)
    assert cat["area_px"]["median"] == 2
    assert (sky["segments"], sky["crowds"], sky["pixels"]) == (1, 0, 2)
    json.dumps(stats, allow_nan=False)


def test_an_image_without_a_label(tmp_path: Path) -> None:
    stats = count_dataset(write_panoptic(tmp_path, PanopticSegmentation(np.zeros((2, 2), np.int32), ())))
    assert stats["void_share"] == 1
    assert stats["classes"]["cat"]["area_px"] is None
    assert draw_dataset_stats(stats, CATEGORIES).ndim == 3


def test_names_are_drawn_as_printable_text_and_no_formula(tmp_path: Path) -> None:
    stats = count_dataset(write_panoptic(tmp_path))
    drawings = []
    for name in ("$x\x1b\u202e", r"$x\x1b\u202e"):
        renamed = {**stats, "classes": {name: stats["classes"]["cat"], "sky": stats["classes"]["sky"]}}
        categories = CategorySet(replace(c, name=name if c.name == "cat" else c.name) for c in CATEGORIES.categories)
        drawings.append(draw_dataset_stats(renamed, categories))
    assert np.array_equal(*drawings)


def test_the_stats_and_view_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panoptic(tmp_path)
    path_options = ["--json", f"{tmp_path}/p.json", "--masks", f"{tmp_path}/p", "--images", f"{tmp_path}/images"]
    dataset_options = ["--format", "coco-panoptic", *path_options]
    assert main(["data", "stats", *dataset_options, "--output", f"{tmp_path}/stats"]) == 0
    assert "16.7 % of the pixels are void" in capsys.readouterr().out
    assert json.loads((tmp_path / "stats" / "stats.json").read_text())["images"] == 1
    assert main(["data", "view", *dataset_options, "--output", f"{tmp_path}/view.png"]) == 0
    with Image.open(tmp_path / "view.png") as image:
        assert image.mode == "RGB"
    assert main(["data", "view", *dataset_options, "--image", "x", "--output", f"{tmp_path}/view.html"]) == 0
    assert "overlay of x" in (tmp_path / "view.html").read_text()
    assert main(["data", "view", *dataset_options, "--image", "y", "--output", f"{tmp_path}/view.png"]) == 1
    assert "the dataset has no image 'y'" in capsys.readouterr().err
    assert main(["data", "view", *dataset_options, "--output", f"{tmp_path}/view.gif"]) == 1


def test_only_crowds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = instances(tmp_path)
    command = ["data", "stats", "--format", "coco-instances", "--json", str(data.json_path), "--images", str(tmp_path)]
    assert main(command) == 0
    assert "crowds (iscrowd 1)" not in capsys.readouterr().out
    content = data.load()
    data.store({**content, "annotations": [{**entry, "iscrowd": 1} for entry in content["annotations"]]})
    assert main(command) == 0
    assert f"all {2 * IMAGES} labels are crowds (iscrowd 1)" in capsys.readouterr().out
