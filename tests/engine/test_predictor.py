"""Input of `segkit predict`: pixels as in training, from files, folders and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.config import load_config
from segkit.data.mapper import read_image
from segkit.engine.predictor import Predictor, find_images
from segkit.utils.errors import DatasetError
from tests.helpers.deep_files import write_tiff


def build_reader(image_format: str) -> Predictor:
    """Without a model: `read` needs only the config."""
    predictor = object.__new__(Predictor)
    predictor.cfg = load_config(opts=["INPUT.FORMAT", image_format])
    return predictor


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_the_predictor_reads_the_same_pixels_as_training(tmp_path: Path, image_format: str) -> None:
    rng = np.random.default_rng(3)
    deep = write_tiff(tmp_path / "deep.tif", rng.integers(0, 4096, (20, 30)).astype(np.uint16))
    exif = Image.Exif()
    exif[274] = 6
    turned = tmp_path / "turned.jpg"
    Image.fromarray(rng.integers(0, 256, (30, 20, 3)).astype(np.uint8)).save(turned, exif=exif)
    for path in (deep, turned):
        pixels = build_reader(image_format).read(path)
        record = {"file_name": str(path), "height": 20, "width": 30}
        np.testing.assert_array_equal(pixels, read_image(record, image_format))
        assert pixels.std() > 30  # not white all over
    with pytest.raises(DatasetError, match=r"gone\.png: the image is missing"):
        build_reader(image_format).read(tmp_path / "gone.png")


def test_folders_files_and_patterns_name_each_image_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "below/c.tif", "below/d.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "below" / "loop").symlink_to(tmp_path)
    paths = find_images([str(tmp_path), str(tmp_path / "b.png")])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a.JPG", "b.png", "below/c.tif", "below/d.bmp"]
    assert find_images([str(tmp_path / "[ab].*")]) == [tmp_path / "a.JPG", tmp_path / "b.png"]
    with pytest.raises(DatasetError, match="no images found"):
        find_images([str(tmp_path / "*.webp")])


@pytest.mark.parametrize("kind", ["text", "cut off", "bomb", "pages", "pipe", "dangling link"])
def test_unreadable_files_are_rejected_before_the_first_prediction(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "b.png"
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (30, 20)).astype(np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    if kind == "text":
        path.write_text("no image")
    elif kind == "cut off":
        path.write_bytes(content[:200])
    elif kind == "bomb":
        Image.new("1", (30_000, 10_000)).save(path)
    elif kind == "pages":
        write_tiff(path, *np.zeros((2, 3, 4), np.uint8))
    else:
        path.unlink()
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"b\.png: "):
        find_images([str(tmp_path)])
