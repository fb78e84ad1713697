"""Images in any form become the pixels that a model reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats.image_io import open_image
from segkit.runtime import images
from segkit.runtime.images import InputFormat
from segkit.utils.errors import DatasetError
from tests.helpers.deep_files import write_tiff

PIXELS = np.random.default_rng(3).integers(0, 256, (20, 30, 3)).astype(np.uint8)
BGR, RGB, GREY = InputFormat("BGR", 3), InputFormat("RGB", 3), InputFormat("L", 1)


class Tensor:
    """What is read of a tensor of torch."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.ndim, self.shape, self.dtype = values, values.ndim, values.shape, f"torch.{values.dtype}"

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> np.ndarray:
        return self.values


@pytest.mark.parametrize("image_format", [RGB, BGR])
def test_every_form_gives_the_same_pixels(image_format: InputFormat, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    forms = [PIXELS, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PIXELS)]
    forms += [np.dstack([PIXELS, np.full((20, 30), 7, np.uint8)]), Tensor(PIXELS.transpose(2, 0, 1))]
    expected = PIXELS if image_format is RGB else PIXELS[..., ::-1]
    for form in forms:
        np.testing.assert_array_equal(image_format.read(form), expected)
    for form in (PIXELS[..., ::-1], Tensor(PIXELS[..., ::-1].transpose(2, 0, 1))):
        np.testing.assert_array_equal(image_format.read(form, "BGR"), expected)
    np.testing.assert_array_equal(image_format.to_rgb(expected), PIXELS)
    np.testing.assert_array_equal(image_format.read_rgb(tmp_path / "a.png"), PIXELS)


def test_grey_and_colours_become_what_the_model_reads() -> None:
    grey = PIXELS[..., 0]
    for form in (grey, grey[..., None], Image.fromarray(grey), Tensor(grey), Tensor(grey[None])):
        np.testing.assert_array_equal(BGR.read(form), np.dstack([grey] * 3))
        np.testing.assert_array_equal(GREY.read(form), grey[..., None])
    luma = np.asarray(Image.fromarray(PIXELS).convert("L"))[..., None]
    np.testing.assert_array_equal(GREY.read(PIXELS), luma)
    np.testing.assert_array_equal(GREY.read(PIXELS[..., ::-1], "BGR"), luma)
    np.testing.assert_array_equal(GREY.to_rgb(luma), np.dstack([luma] * 3))
    hsv = np.asarray(Image.fromarray(PIXELS).convert("HSV"))
    np.testing.assert_array_equal(InputFormat("HSV", 3).read(PIXELS), hsv)
    assert abs(InputFormat("HSV", 3).to_rgb(hsv).astype(int) - PIXELS).max() < 8


def encode(image: Image.Image, kind: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def write_turned(folder: Path) -> Path:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(folder / "turned.jpg", exif=exif)
    return folder / "turned.jpg"


def write_deep(folder: Path) -> Path:
    values = np.random.default_rng(1).integers(0, 4096, (20, 30)).astype(np.uint16)
    return write_tiff(folder / "deep.tif", values)


def write_deep_colors(folder: Path) -> Path:
    import cv2

    values = np.random.default_rng(1).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    cv2.imwrite(str(folder / "deep.png"), values)
    return folder / "deep.png"


def write_cmyk(folder: Path) -> Path:
    Image.fromarray(PIXELS).convert("CMYK").save(folder / "cmyk.jpg")
    return folder / "cmyk.jpg"


def write_alpha(folder: Path) -> Path:
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])).save(folder / "alpha.png")
    return folder / "alpha.png"


def write_animation(folder: Path) -> Path:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    return folder / "a.webp"


WRITERS = [write_turned, write_deep, write_deep_colors, write_cmyk, write_alpha, write_animation]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_images_that_pillow_opens_are_read_as_files_are(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    expected = np.asarray(open_image(path).convert("RGB"))
    assert expected.std() > 30
    np.testing.assert_array_equal(RGB.read(path), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(RGB.read(image), expected)
        np.testing.assert_array_equal(RGB.read(image), expected)  # it is decoded by now
    if write is not write_deep_colors:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            np.testing.assert_array_equal(RGB.read(image), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS / np.float32(255), r"got \(20, 30, 3\) float32 with values from 0 to 1; scale it to 0\.\.255"),
        (PIXELS.astype(np.uint16) * 16, r"uint16 with values from 0 to 4080"),
        (PIXELS.transpose(2, 0, 1), r"1, 3 or 4 channels, got \(3, 20, 30\); are the channels first\?"),
        (PIXELS[..., :2], r"1, 3 or 4 channels, got \(20, 30, 2\)$"),
        (PIXELS[None], r"got \(1, 20, 30, 3\) uint8; give several images as a list"),
        (PIXELS[:0], r"got \(0, 30, 3\) uint8$"),
        (np.array([["a"]]), r"got \(1, 1\) <U1"),
        (Tensor(PIXELS), r"a tensor must be \(C, H, W\) uint8, got \(20, 30, 3\); give tensor\.permute"),
        (Tensor(PIXELS.transpose(2, 0, 1)[None]), r"got \(1, 3, 20, 30\) torch\.uint8; give several images"),
        (Tensor(PIXELS.transpose(2, 0, 1) / 255), r"got \(3, 20, 30\) torch\.float64; scale it"),
        (None, "image must be a path, an image of Pillow, an array or a tensor, got NoneType"),
    ],
)
def test_other_arrays_are_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BGR.read(image)


def test_other_options_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="color_order must be 'RGB' or 'BGR', got 'GBR'"):
        BGR.read(PIXELS, "GBR")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"got the address https://a\.org/b\.jpg; download it"):
        BGR.read("https://a.org/b.jpg")
    with pytest.raises(DatasetError, match=r"gone\.png: the image is missing"):
        BGR.read(tmp_path / "gone.png")
    cut = Image.open(io.BytesIO(encode(Image.fromarray(PIXELS), "PNG").getvalue()[:300]))
    with pytest.raises(DatasetError, match="the image: the image does not decode"):
        BGR.read(cut)


def test_models_of_any_channels_take_these_alone(tmp_path: Path) -> None:
    four = InputFormat("CHANNELS", 4)
    bands = np.dstack([PIXELS, PIXELS[..., :1]])
    np.save(tmp_path / "a.npy", bands)
    for form in (bands, tmp_path / "a.npy", Tensor(bands.transpose(2, 0, 1))):
        np.testing.assert_array_equal(four.read(form, "BGR"), bands)
    np.testing.assert_array_equal(four.to_rgb(bands), PIXELS)
    np.testing.assert_array_equal(InputFormat("CHANNELS", 1).read(PIXELS[..., 0]), PIXELS[..., :1])
    with pytest.raises(ValueError, match=r"with 4 channels, got \(20, 30, 3\)"):
        four.read(PIXELS)
    with pytest.raises(ValueError, match="must have 4 channels"):
        four.read(Image.fromarray(PIXELS))
    np.save(tmp_path / "rgb.npy", PIXELS)
    with pytest.raises(DatasetError, match="expected 4 channels, got 3"):
        four.read(tmp_path / "rgb.npy")


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_large_images_are_copied_in_bands(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BAND_PX", 8)  # two rows of four, of seven
    pixels = np.arange(7 * 4 * 3, dtype=np.uint8).reshape(7, 4, 3)
    expected = pixels if order == "RGB" else pixels[..., ::-1]
    np.testing.assert_array_equal(images.convert_pixels(Image.fromarray(pixels), order), expected)
