"""Images that a format cannot hold are left out and reported; the others are converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.curation.convert import ConversionLoss, convert
from segkit.formats.coco import CocoPanopticReader, PanopticWriter
from segkit.formats.registry import open_writer
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(3, "car", True, (1, 2, 3))])


def write_images(root: Path, objects_by_name: dict[str, int]) -> CocoPanopticReader:
    """Writes images of one row, with so many objects of a pixel each."""
    (root / "images").mkdir(parents=True)
    with PanopticWriter(root / "p.json", root / "p", CATEGORIES) as writer:
        for index, (name, count) in enumerate(objects_by_name.items()):
            ids = np.arange(1, count + 1, dtype=np.int32)[None]
            segmentation = PanopticSegmentation(ids, tuple(Segment(i, 3, True, 1) for i in range(1, count + 1)))
            writer.add(f"{index}", name, segmentation)
            Image.new("RGB", (count, 1)).save(root / "images" / name)
    return CocoPanopticReader(root / "p.json", root / "p", root / "images")


def test_more_segments_than_a_channel_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "set", {"a.png": 2, "b.png": 257, "c.png": 1})
    command = ["data", "convert", "--from", "auto", "--root", f"{tmp_path}/set", "--output", f"{tmp_path}/out"]
    assert main([*command, "--to", "two-channel-png"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines()[-2:] == [
        "1 of 3 images are left out, two-channel-png cannot hold them:",
        "  image '1': expected at most 256 segments of a category, got 257",
    ]
    for folder in ("images", "masks"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == ["a.png", "c.png"]
    assert main(["data", "check", "--format", "auto", "--root", f"{tmp_path}/out"]) == 0


def test_more_instances_of_a_class_than_cityscapes_holds(tmp_path: Path) -> None:
    reader = write_images(tmp_path / "set", {"a.png": 1, "b.png": 1001, "c.png": 1000})
    losses = convert(reader, open_writer("cityscapes", tmp_path / "out", CATEGORIES, {}), copy_images=True)
    problem = "an image must have at most 1000 instances of car"
    assert losses == [ConversionLoss("1", problem, is_left_out=True)]
    assert sorted(path.name[0] for path in (tmp_path / "out").rglob("*.png")) == ["a"] * 3 + ["c"] * 3


@pytest.mark.parametrize(
    ("format_name", "name", "problem"),
    [
        ("voc", "b.jpg", "an image named b was added before"),
        ("labelme", "b.jpg", "an image named b was added before"),
        ("yolo", "b.jpg", "an image named b was added before"),
        ("cityscapes", "b.jpg", "labels of the name 'b' were written before"),
        ("semantic-maps", ".b.png", "a file_name without hidden parts"),
        ("instance-maps", "a\\b.png", "a file_name without hidden parts and backslashes"),
        ("cityscapes", f"{'b' * 240}.png", "expected names of at most 255 bytes"),
        ("voc", " b.png", "a line of an image set"),
    ],
)
def test_names_that_a_format_cannot_hold(tmp_path: Path, format_name: str, name: str, problem: str) -> None:
    reader = write_images(tmp_path / "set", {"b.png": 1, name: 2})
    losses = convert(reader, open_writer(format_name, tmp_path / "out", CATEGORIES, {}), copy_images=True)
    left_out = [loss for loss in losses if loss.is_left_out]
    assert [loss.image_id for loss in left_out] == ["1"]
    assert problem in left_out[0].description
    images = [p for p in (tmp_path / "out").rglob("*.*g") if Image.open(p).size == (2, 1)]
    assert images == []


def test_nothing_is_written_if_no_image_can_be_held(tmp_path: Path) -> None:
    reader = write_images(tmp_path / "set", {"a.png": 257})
    message = "none of the 1 images can be held, expected at most 256 segments of a category, got 257; convert to"
    with pytest.raises(DatasetError, match=message):
        convert(reader, open_writer("two-channel-png", tmp_path / "out", CATEGORIES, {}))
    assert not (tmp_path / "out/categories.json").exists()


def test_other_errors_of_a_writer_end_the_conversion(tmp_path: Path) -> None:
    """A full disk, say, is no property of the image."""
    reader = write_images(tmp_path / "set", {"a.png": 1, "b.png": 1})
    writer = open_writer("two-channel-png", tmp_path / "out", CATEGORIES, {})
    (tmp_path / "out").write_text("a file where the folder belongs")
    with pytest.raises(DatasetError, match="cannot be written"):
        convert(reader, writer)


def test_a_loss_is_no_image_that_is_left_out() -> None:
    assert not ConversionLoss(1, "lost").is_left_out
