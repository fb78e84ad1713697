from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats import png
from segkit.structures import rgb_to_ids
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import files_below

RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
SIXTEEN_BIT_RGB = (  # 1 x 1, written by hand: Pillow reads it as 8 bits, and cannot write it
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x10\x02\x00\x00\x00"
)


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 65535)))
def test_grey16_round_trip(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("png") / "x.png"
    png.write(path, values)
    assert png.read_header(path) == png.Header(values.shape, 16, "greyscale")
    read = png.read_grey16(path, values.shape)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, values)


def test_rgb_round_trip(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", RGB)
    np.testing.assert_array_equal(png.read_id_runs(tmp_path / "x.png", (2, 4)).to_map(), rgb_to_ids(RGB))
    png.write(tmp_path / "y.png", RGB[::-1, ::-1])  # not contiguous
    np.testing.assert_array_equal(png.read_id_runs(tmp_path / "y.png").to_map(), rgb_to_ids(RGB[::-1, ::-1]))


def test_8_bit_grey_is_written_unchanged(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", RGB[..., 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), RGB[..., 0])


def test_palettes_are_converted_to_rgb_and_alpha_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(RGB).quantize(8).save(tmp_path / "palette.png")
    assert png.read_header(tmp_path / "palette.png").kind == "palette"
    np.testing.assert_array_equal(png.read_id_runs(tmp_path / "palette.png").to_map(), rgb_to_ids(RGB))
    transparent = np.dstack([RGB, np.zeros((2, 4), dtype=np.uint8)])
    Image.fromarray(transparent).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(png.read_id_runs(tmp_path / "rgba.png").to_map(), rgb_to_ids(RGB))


@pytest.mark.parametrize(
    "pixels",
    [RGB.astype(np.int32), RGB[..., :2], RGB[0, 0], np.zeros((0, 4), np.uint8), RGB[None], RGB.astype(np.uint16)],
)
def test_unsupported_pixels_raise_an_error_and_write_nothing(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels must be"):
        png.write(tmp_path / "x.png", pixels)
    assert files_below(tmp_path) == set()


def _truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _corrupt(path: Path) -> None:
    Image.fromarray(RGB).save(path)
    content = bytearray(path.read_bytes())
    content[45] ^= 255
    path.write_bytes(content)


READ_ERRORS = {
    "missing": (lambda path: None, "found nothing"),
    "empty": (lambda path: path.write_bytes(b""), "expected a PNG"),
    "text": (lambda path: path.write_text("no image, but long enough for a header"), "expected a PNG"),
    "jpeg": (lambda path: Image.fromarray(RGB).save(path, "JPEG"), "expected a PNG"),
    "header only": (lambda path: path.write_bytes(SIXTEEN_BIT_RGB[:24] + b"\x08\x02"), "cannot be decoded"),
    "truncated": (_truncated, "cannot be decoded"),
    "corrupt": (_corrupt, "cannot be decoded"),
    "greyscale": (lambda path: Image.fromarray(RGB[..., 0]).save(path), "got 8-bit greyscale"),
    "grey alpha": (lambda path: Image.new("LA", (4, 2)).save(path), "got 8-bit greyscale with alpha"),
    "one bit": (lambda path: Image.new("1", (4, 2)).save(path), "got 1-bit greyscale"),
    "grey 16": (lambda path: Image.fromarray(RGB[..., 0].astype(np.uint16)).save(path), "got 16-bit greyscale"),
    "RGB 16": (lambda path: path.write_bytes(SIXTEEN_BIT_RGB), "expected a PNG of 8-bit .* got 16-bit RGB"),
}


@pytest.mark.parametrize("error_name", READ_ERRORS)
def test_read_id_runs_raises_a_dataset_error_for_invalid_files(tmp_path: Path, error_name: str) -> None:
    write_file, message = READ_ERRORS[error_name]
    write_file(tmp_path / "x.png")
    with pytest.raises(DatasetError, match=rf"x\.png: .*{message}"):
        png.read_id_runs(tmp_path / "x.png")


def test_read_grey16_raises_a_dataset_error_for_8_bits_and_colour(tmp_path: Path) -> None:
    for name, pixels in (("grey", RGB[..., 0]), ("rgb", RGB)):
        png.write(tmp_path / name, pixels)
        with pytest.raises(DatasetError, match="expected a PNG of 16-bit greyscale, got 8-bit"):
            png.read_grey16(tmp_path / name)


def test_an_unexpected_size_raises_a_dataset_error(tmp_path: Path) -> None:
    png.write(tmp_path / "x.png", RGB)
    with pytest.raises(DatasetError, match=r"x\.png: expected 4 x 2 pixels \(height x width\), got 2 x 4"):
        png.read_id_runs(tmp_path / "x.png", (4, 2))


def test_the_header_is_read_without_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    png.write(path, RGB)
    path.write_bytes(path.read_bytes()[: png.HEADER_BYTES])
    assert png.read_header(path) == png.Header((2, 4), 8, "RGB")


def test_an_image_above_the_pixel_limit_raises_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png.write(tmp_path / "x.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(DatasetError, match=r"expected at most 6 pixels, got 2 x 4 = 8; .*SEGKIT_MAX_PIXELS=8"):
        png.read_id_runs(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["label", "ids", "grey16"])
def test_every_damaged_bit_raises_a_dataset_error(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 200, (6, 7)), np.ones((5, 4), dtype=np.int64))
    path = tmp_path / "a.png"
    if kind == "ids":
        png.write_ids(path, pixels.astype(np.int32) * 1000)
    else:
        png.write(path, pixels.astype(np.uint8 if kind == "label" else np.uint16))
    content = path.read_bytes()

    def read() -> np.ndarray:
        if kind == "ids":
            return png.read_id_runs(path).to_map()
        return np.asarray(png.open_image(path, None, {"greyscale"}, (8, 16)))

    expected = read()
    assert expected.shape == (30, 28)
    for position in range(8, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"a\.png"):
            read()


def test_a_png_without_its_last_chunk_raises_a_dataset_error(tmp_path: Path) -> None:
    png.write(tmp_path / "a.png", np.ones((3, 4), dtype=np.uint8))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-12])
    with pytest.raises(DatasetError, match="it is cut off; write or fetch it again"):
        png.open_image(tmp_path / "a.png", None, {"greyscale"}, (8,))
