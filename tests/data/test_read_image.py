"""Images are read the same way in training, evaluation and prediction; 8-bit images as in Detectron2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
from detectron2.data import detection_utils
from PIL import Image

from segkit.data.dataset import Record
from segkit.data.mapper import convert_pixels, read_image
from segkit.formats import image_io
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.deep_files import write_tiff

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
FORMATS = ("RGB", "BGR", "L", "YUV-BT.601", "HSV", "CMYK")
NOISE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (11, 17, 4)).astype(np.uint8))
# What can hold each mode losslessly, or at all.
HOLDERS = {"CMYK": ("tif", "jpg"), "YCbCr": ("tif", "jpg"), "RGB": ("png", "tif", "bmp", "webp", "jpg", "ppm")}


def record(path: Path) -> Record:
    with Image.open(path) as image:
        return {"file_name": str(path), "height": image.height, "width": image.width}


def files() -> list[tuple[str, str]]:
    return [(mode, suffix) for mode in MODES for suffix in HOLDERS.get(mode, ("png", "tif"))]


def draw_image(mode: str) -> Image.Image:
    if mode == "P":
        return NOISE.convert("RGB").quantize(50)
    return NOISE.convert("RGB").convert(mode) if mode not in ("LA", "RGBA") else NOISE.convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), files())
@pytest.mark.parametrize("image_format", FORMATS)
def test_8_bit_images_are_read_as_in_detectron2(tmp_path: Path, mode: str, suffix: str, image_format: str) -> None:
    if (mode, suffix) == ("YCbCr", "tif") and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 does not read the YCbCr TIFFs that it writes")
    path = tmp_path / f"a.{suffix}"
    draw_image(mode).save(path)
    expected = detection_utils.read_image(str(path), image_format)
    pixels = read_image(record(path), image_format)
    assert (pixels.dtype, pixels.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(image_io.read_image(path), detection_utils.read_image(str(path), "RGB"))


@pytest.mark.parametrize("transparency", [7, bytes(range(50))])
def test_palettes_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    draw_image("P").save(tmp_path / "a.png", transparency=transparency)
    expected = detection_utils.read_image(str(tmp_path / "a.png"), "RGB")
    np.testing.assert_array_equal(read_image(record(tmp_path / "a.png"), "RGB"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "jpg"), ("L", "jpg"), ("P", "png"), ("RGBA", "png")])
def test_rotated_8_bit_images(tmp_path: Path, mode: str, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[274] = orientation
    draw_image(mode).save(path, exif=exif)
    expected = detection_utils.read_image(str(path), "BGR")
    entry: Record = {"file_name": str(path), "height": expected.shape[0], "width": expected.shape[1]}
    np.testing.assert_array_equal(read_image(entry, "BGR"), expected)


@pytest.mark.parametrize("dtype", ["u2", "f4", "i4"])
def test_16_bit_images_are_the_same_everywhere(tmp_path: Path, dtype: str) -> None:
    """12-bit values, which Pillow's conversion would clip to white."""
    path = write_tiff(tmp_path / "a.tif", np.linspace(300, 4095, 600).reshape(20, 30).astype(dtype))
    rgb = image_io.read_image(path)
    assert (rgb.min(), rgb.max()) == (0, 255)
    assert abs(float(rgb.mean()) - 127.5) < 1
    np.testing.assert_array_equal(read_image(record(path), "RGB"), rgb)
    np.testing.assert_array_equal(read_image(record(path), "BGR"), rgb[..., ::-1])
    np.testing.assert_array_equal(read_image(record(path), "L"), rgb[..., :1])


def test_bgr_images_have_positive_strides(tmp_path: Path) -> None:
    """Arrays with negative strides would be copied by each later step."""
    NOISE.convert("RGB").save(tmp_path / "a.png")
    assert read_image(record(tmp_path / "a.png"), "BGR").flags.c_contiguous


def test_errors_name_the_file_and_the_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (4, 3)).save(path)
    remedy = "use the image that was annotated"
    with pytest.raises(DatasetError, match=rf"a\.png: expected 4 x 3 pixels .* got 3 x 4; {remedy}"):
        read_image({**record(path), "height": 4, "width": 3}, "BGR")
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT: expected RGB, BGR, .* got 'XYZ'"):
        convert_pixels(image_io.open_image(path), "XYZ")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"a\.png: the image does not decode"):
        read_image({"file_name": str(path), "height": 3, "width": 4}, "BGR")
    path.unlink()
    with pytest.raises(DatasetError, match=r"a\.png: the image is missing; complete the download"):
        read_image({"file_name": str(path), "height": 3, "width": 4}, "BGR")
