"""A small file that claims to be a huge image is refused by every reader, and SEGKIT_MAX_PIXELS moves the limit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from segkit.curation.image_files import inspect_image
from segkit.formats import png
from segkit.formats.image_io import open_image, read_image, read_image_size, read_label_tiff
from segkit.formats.pixel_limit import get_max_pixels
from segkit.utils.errors import ConfigError, DatasetError

READERS = {
    "a.png": [open_image, read_image, read_image_size, png.read_id_runs],
    "a.jpg": [read_image],
    "a.webp": [read_image],
    "grey.png": [png.read_labels],
    "grey.tif": [read_label_tiff, read_image],
}
CASES = [(name, read) for name, readers in READERS.items() for read in readers]


@pytest.mark.parametrize(("name", "read"), CASES)
def test_every_reader_keeps_the_limit(tmp_path, monkeypatch, name, read):
    path = tmp_path / name
    Image.fromarray(np.zeros((6, 5) if "grey" in name else (6, 5, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "29")
    with pytest.raises(DatasetError, match=rf"{name}: expected at most 29 pixels, got 6 x 5 = 30; cut it into tiles"):
        read(path)
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "30")
    read(path)


@pytest.mark.parametrize("name", ["a.png", "grey.tif"])
def test_the_limit_can_be_raised_above_that_of_pillow(tmp_path, monkeypatch, name):
    path = tmp_path / name
    Image.fromarray(np.zeros((6, 5), dtype=np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DatasetError, match="expected at most 20 pixels"):
        read_image(path)
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "30")
    assert read_image(path).shape == (6, 5, 3)


def test_the_check_reports_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    png.write(path, np.zeros((6, 5, 3), dtype=np.uint8))
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "29")
    assert [issue.code for issue in inspect_image(path, "here").issues] == ["image-too-large"]


def test_the_default_is_that_of_pillow(monkeypatch):
    monkeypatch.delenv("SEGKIT_MAX_PIXELS", raising=False)
    assert get_max_pixels() == 178_956_970


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "many", "٣", "9" * 30])
def test_a_limit_that_is_no_number_is_one_error(monkeypatch, text):
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", text)
    with pytest.raises(ConfigError, match="SEGKIT_MAX_PIXELS: expected a whole number from 1"):
        get_max_pixels()


def test_threads_that_read_side_by_side_keep_the_limit(tmp_path):
    path, limit = tmp_path / "a.png", Image.MAX_IMAGE_PIXELS
    Image.fromarray(np.zeros((6, 5, 3), dtype=np.uint8)).save(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 400))
    assert limit == Image.MAX_IMAGE_PIXELS
