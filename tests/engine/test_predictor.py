"""Pixels of `segkit predict`: those of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.config import load_config
from segkit.data.mapper import read_image
from segkit.engine.predictor import Predictor
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
        np.testing.assert_array_equal(pixels, build_reader(image_format).read(str(path)))
        record = {"file_name": str(path), "height": 20, "width": 30}
        np.testing.assert_array_equal(pixels, read_image(record, image_format))
        assert pixels.std() > 30  # not white all over
    with pytest.raises(DatasetError, match=r"gone\.png: the image is missing"):
        build_reader(image_format).read(tmp_path / "gone.png")
