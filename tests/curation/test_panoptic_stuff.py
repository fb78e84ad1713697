"""`segkit data panoptic-stuff`: the semantic PNGs of Detectron2's own panoptic names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.formats.coco.panoptic_writer import PanopticWriter
from tests.helpers.coco_samples import CATEGORIES, Dataset, files_below, first_image, second_image


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    sample = Dataset(json_path=tmp_path / "panoptic.json", png_folder=tmp_path / "panoptic")
    with PanopticWriter(*sample, CATEGORIES) as writer:
        writer.add(11, "eleven.jpg", first_image())
        writer.add("twelve", "sub/twelve.jpg", second_image())
    return sample


def run(dataset: Dataset, output: Path, workers: int = 1) -> int:
    paths = ["--json", str(dataset.json_path), "--masks", str(dataset.png_folder), "--output", str(output)]
    return main(["data", "panoptic-stuff", *paths, "--workers", str(workers)])


@pytest.mark.parametrize("workers", [1, 2])
def test_things_stuff_and_void(
    dataset: Dataset, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dataset, tmp_path / "stuff", workers) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "wrote 2 PNGs" in captured.out
    assert files_below(tmp_path / "stuff") == {"eleven.png", "twelve.png"}
    # sky is the first stuff category, grass the second.
    eleven = np.asarray(Image.open(tmp_path / "stuff/eleven.png"))
    assert eleven.tolist() == [[1, 1, 1, 255], [0, 0, 1, 255], [0, 0, 0, 0]]
    assert (np.asarray(Image.open(tmp_path / "stuff/twelve.png")) == 2).all()


def test_an_error_is_one_line(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset.png_folder / "twelve.png").unlink()
    assert run(dataset, tmp_path / "stuff", workers=2) == 1
    error = capsys.readouterr().err
    assert error.startswith("segkit data: ")
    assert error.count("\n") == 1
    assert "twelve.png: expected a file, found nothing" in error


def test_the_ground_truth_is_not_overwritten(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = (dataset.png_folder / "eleven.png").read_bytes()
    assert run(dataset, dataset.png_folder / "." / "") == 1
    assert "another folder" in capsys.readouterr().err
    assert (dataset.png_folder / "eleven.png").read_bytes() == before


def test_workers_must_be_positive(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dataset, tmp_path / "stuff", workers=0) == 2
    assert "expected a whole number from 1, got '0'" in capsys.readouterr().err
