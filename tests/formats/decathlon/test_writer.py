"""Slices are written as volumes on the grid of the image, and read as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.decathlon import DecathlonReader, DecathlonWriter
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers.decathlon_tree import AFFINE, add_volume, write_table

LABEL = np.array([[[0, 1, 2, 2], [1, 1, 0, 2], [0, 0, 1, 0]], [[2, 2, 2, 0], [0, 1, 0, 1], [1, 0, 0, 2]]], np.uint8)
FLIPPED = np.diag([-1.0, 2.0, 3.0, 1.0])


@pytest.fixture
def nib() -> Any:
    return pytest.importorskip("nibabel")


@pytest.fixture
def task(nib: Any, tmp_path: Path) -> Path:
    add_volume(nib, tmp_path / "task", "v_1", label=LABEL)
    add_volume(nib, tmp_path / "task", "w", label=2 - LABEL, affine=FLIPPED)
    write_table(tmp_path / "task", ["v_1", "w"])
    return tmp_path / "task"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_a_task_become_its_volumes(nib: Any, task: Path, tmp_path: Path, axis: int) -> None:
    command = ["data", "convert", "--from", "decathlon", "--root", task, "--to", "decathlon", "--set", f"axis={axis}"]
    options = [f"volumes={task}/imagesTr", f"axis={axis}"]
    command += ["--output", tmp_path / "out", "--skip-images", "--to-set", *options]
    assert main([*map(str, command)]) == 0
    for name, label, affine in (("v_1", LABEL, AFFINE), ("w", 2 - LABEL, FLIPPED)):
        volume = nib.load(tmp_path / f"out/{name}.nii.gz")
        assert np.array_equal(volume.dataobj, label)
        assert np.array_equal(volume.affine, affine)


def test_missing_slices_are_an_error_or_background(nib: Any, task: Path, tmp_path: Path) -> None:
    reader = DecathlonReader(task)
    image = next(image for image in reader.images if image.image_id == "v_1_002")
    folder = str(task / "imagesTr")
    writer = DecathlonWriter(tmp_path / "a", reader.categories, volumes=folder)
    writer.add(image, reader.read_segmentation(image))
    with pytest.raises(DatasetError, match=r"1 volumes lack slices: 'v_1'; .*fill=true"):
        writer.finish()
    with DecathlonWriter(tmp_path / "b", reader.categories, volumes=folder, fill=True) as writer:
        writer.add(image, reader.read_segmentation(image))
    expected = np.zeros_like(LABEL)
    expected[..., 2] = LABEL[..., 2]
    assert np.array_equal(nib.load(tmp_path / "b/v_1.nii.gz").dataobj, expected)


def test_what_volumes_cannot_hold_is_named(task: Path, tmp_path: Path) -> None:
    reader = DecathlonReader(task, things=["anterior"])
    writer = DecathlonWriter(tmp_path, reader.categories, volumes=str(task / "imagesTr"))
    ids = np.array([[1, 2], [0, 1], [0, 0]], dtype=np.int32)
    segments = (Segment(1, 1, True, 2, score=0.5), Segment(2, 1, True, 1))
    image = DatasetImage(1, "a/v_1_000.jpg", (3, 2))
    assert writer.add(image, PanopticSegmentation(ids, segments)) == [
        "2 objects of 1 classes are not told apart",
        "void: 3 pixels become label 0",
        "scores cannot be held: 1 segments have one",
    ]
    for name, size_hw, message in (
        ("photo.png", (3, 2), "expected a file named VOLUME_INDEX, got 'photo.png'"),
        ("x_000.png", (3, 2), "expected the slice of a volume, got one of 'x'"),
        ("v_1_000.png", (3, 2), "slice 0 of v_1 was added before"),
        ("v_1_001.png", (2, 3), "expected one of 4 slices of 3 x 2 pixels"),
        ("v_1_004.png", (3, 2), "got slice 4 of 3 x 2"),
    ):
        empty = PanopticSegmentation(np.zeros(size_hw, dtype=np.int32), ())
        with pytest.raises(UnfitImageError, match=message):
            writer.add(DatasetImage(2, name, size_hw), empty)
