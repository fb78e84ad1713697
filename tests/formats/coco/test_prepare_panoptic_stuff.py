from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.coco_samples import Dataset, files_below

SCRIPT = Path(__file__).parents[3] / "datasets" / "prepare_panoptic_stuff.py"


def _run(dataset: Dataset, output: Path, workers: int = 1) -> subprocess.CompletedProcess[str]:
    paths = ["--json", str(dataset.json_path), "--png-folder", str(dataset.png_folder), "--output", str(output)]
    command = [sys.executable, str(SCRIPT), *paths, "--workers", str(workers)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_things_stuff_and_void(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    done = _run(dataset, tmp_path / "stuff", workers)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote 2 PNGs" in done.stdout
    assert files_below(tmp_path / "stuff") == {"eleven.png", "twelve.png"}
    # sky is the first stuff category, grass the second.
    eleven = np.asarray(Image.open(tmp_path / "stuff/eleven.png"))
    assert eleven.tolist() == [[1, 1, 1, 255], [0, 0, 1, 255], [0, 0, 0, 0]]
    assert (np.asarray(Image.open(tmp_path / "stuff/twelve.png")) == 2).all()


def test_a_fault_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.png_folder / "twelve.png").unlink()
    done = _run(dataset, tmp_path / "stuff", workers=2)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "twelve.png: expected a file, found nothing" in done.stderr


def test_the_ground_truth_is_not_overwritten(dataset: Dataset) -> None:
    before = (dataset.png_folder / "eleven.png").read_bytes()
    done = _run(dataset, dataset.png_folder / "." / "")
    assert done.returncode == 1
    assert "another folder" in done.stderr
    assert (dataset.png_folder / "eleven.png").read_bytes() == before


def test_workers_must_be_positive(dataset: Dataset, tmp_path: Path) -> None:
    done = _run(dataset, tmp_path / "stuff", workers=0)
    assert done.returncode == 2
    assert "--workers must be at least 1, got 0" in done.stderr
