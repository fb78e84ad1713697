"""Tests of reading images: 8-bit values, stretching of deeper values, orientation and errors."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import image_io
from segkit.formats.image_io import is_deep, open_image, read_image, read_image_size, stretch_to_uint8
from segkit.utils.errors import DatasetError
from tests.helpers.deep_files import GREY_ALPHA, RAMP, RGB, RGBA, STRETCHED_RAMP, png_chunk, write_png16, write_tiff

STRETCHED_RGB = np.repeat(STRETCHED_RAMP[..., None], 3, axis=2)
DEEP = RAMP.astype(np.uint16)
NOISE = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3)).astype(np.uint16)
ORIENT = {  # by EXIF orientation, of an array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "u4", "f4"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_deep_grey_tiffs_are_stretched(tmp_path: Path, dtype: str, big_endian: bool) -> None:
    big_endian = big_endian and dtype != "u4"  # Pillow reads uint32 from little-endian files only
    path = write_tiff(tmp_path / "a.tif", RAMP.astype(dtype), big_endian=big_endian)
    with Image.open(path) as image:
        assert is_deep(image)
    np.testing.assert_array_equal(read_image(path, (3, 67)), STRETCHED_RGB)


def test_uint32_values_above_the_int32_range_are_stretched(tmp_path: Path) -> None:
    values = RAMP.astype(np.uint32) + np.uint32(2**31 - 1000)  # half of them would be negative as int32
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "a.tif", values)), STRETCHED_RGB)


def test_a_white_is_zero_tiff_is_inverted(tmp_path: Path) -> None:
    """Pillow inverts 8-bit TIFFs; deeper TIFFs are inverted in the same way."""
    assert read_image(write_tiff(tmp_path / "a.tif", np.uint8([[0, 255]]), t262=0))[..., 0].tolist() == [[255, 0]]
    for dtype in ("u2", "f4"):
        result = read_image(write_tiff(tmp_path / "a.tif", RAMP.astype(dtype), t262=0))
        np.testing.assert_array_equal(result, 255 - STRETCHED_RGB)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_deep_grey_images_of_other_formats(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(DEEP)
    try:
        image.save(tmp_path / name)
    except (KeyError, OSError):
        pytest.skip("this Pillow cannot write it")
    with Image.open(tmp_path / name) as image:
        assert is_deep(image)
    np.testing.assert_array_equal(read_image(tmp_path / name), STRETCHED_RGB)


@pytest.mark.parametrize(("color", "channels"), [(GREY_ALPHA, 1), (RGB, 3), (RGBA, 3)])
def test_16_bit_grey_stored_as_colour_is_read_as_grey(tmp_path: Path, color: int, channels: int) -> None:
    """The alpha channel is ignored: it would change the percentiles here."""
    alpha = [np.full_like(DEEP, 9)] if color != RGB else []
    path = write_png16(tmp_path / "a.png", np.dstack([DEEP] * channels + alpha), color)
    with Image.open(path) as image:
        assert is_deep(image)
    np.testing.assert_array_equal(read_image(path), STRETCHED_RGB)


def test_percentiles_of_grey_stored_as_colour_are_computed_from_one_channel(tmp_path: Path) -> None:
    """The percentiles of four values are 1.5 and 989.5 (positions 0.015 and 2.985); of three copies, 0 and 1000."""
    four_values = np.uint16([[0, 100, 300, 1000]])
    expected = [[0, 25, 77, 255]]  # 255 * 98.5 / 988 = 25.4 and 255 * 298.5 / 988 = 77.04; else 26 and 76
    assert read_image(write_tiff(tmp_path / "a.tif", four_values))[..., 0].tolist() == expected
    assert read_image(write_png16(tmp_path / "a.png", np.dstack([four_values] * 3), RGB))[..., 1].tolist() == expected
    assert (
        read_image(write_png16(tmp_path / "a.png", np.dstack([four_values] * 2), GREY_ALPHA))[..., 2].tolist()
        == expected
    )


@pytest.mark.parametrize("kind", ["png", "tif", "big-endian tif", "tif of four channels"])
def test_16_bit_colours_share_one_scale(tmp_path: Path, kind: str) -> None:
    """The ramp is spread over the channels: 12-bit colours, whose high bytes (Pillow's result) have eight levels."""
    colors = DEEP.reshape(67, 1, 3)
    if kind == "png":
        path = write_png16(tmp_path / "a.png", colors, RGB)
    elif kind == "tif of four channels":
        path = write_tiff(tmp_path / "a.tif", np.dstack([colors, colors[..., :1]]))
    else:
        path = write_tiff(tmp_path / "a.tif", colors, big_endian=kind == "big-endian tif")
    np.testing.assert_array_equal(read_image(path), STRETCHED_RAMP.reshape(67, 1, 3))


def test_16_bit_colours_that_two_decoders_read_differently_raise_a_dataset_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png16(tmp_path / "a.png", NOISE, RGB)
    read_image(path)
    monkeypatch.setattr(image_io.cv2, "imdecode", lambda content, how: NOISE)  # as if it were RGB, not BGR
    with pytest.raises(DatasetError, match="16-bit channels is not supported"):
        read_image(path)
    monkeypatch.setattr(image_io.cv2, "imdecode", lambda content, how: None)
    with pytest.raises(DatasetError, match="16-bit channels is not supported"):
        read_image(path)


def test_non_finite_values_and_constant_images_become_0(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = RAMP.astype(np.float32)
    with_gaps = np.vstack([values, np.float32([[np.nan, np.inf, -np.inf] + [np.nan] * 64])])
    path = write_tiff(tmp_path / "a.tif", with_gaps)
    result = read_image(path)
    np.testing.assert_array_equal(result[:3], STRETCHED_RGB)
    assert not result[3].any()
    assert [record.getMessage() for record in caplog.records] == [f"{path}: 67 values are NaN or infinite and become 0"]
    assert not read_image(write_tiff(path, np.full((2, 3), np.nan, np.float32))).any()
    assert not read_image(write_tiff(path, np.full((2, 3), 4000, np.uint16))).any()


def write_image_with_orientation(path: Path, kind: str, orientation: int) -> NDArray[Any]:
    """Writes an image with an EXIF orientation; returns its stored pixels, (H, W) or (H, W, 3)."""
    pixels_8_bit = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "png":
        Image.fromarray(pixels_8_bit).save(path, exif=exif)
        return pixels_8_bit
    if kind == "deep png":
        Image.fromarray(pixels_8_bit.astype(np.uint16)).save(path, exif=exif)
        return stretch_to_uint8(pixels_8_bit.astype(np.uint16))
    if kind == "deep colour png":
        write_png16(path, NOISE, RGB)
        content, chunk = path.read_bytes(), png_chunk(b"eXIf", exif.tobytes()[6:])
        path.write_bytes(content[:33] + chunk + content[33:])  # after the header
        return stretch_to_uint8(NOISE)
    if kind == "compressed tif":
        Image.fromarray(pixels_8_bit).save(path, compression="tiff_lzw", tiffinfo={274: orientation})
        return pixels_8_bit
    pixels = {
        "tif": pixels_8_bit,
        "deep tif": pixels_8_bit.astype(np.uint16),
        "colour tif": np.dstack([pixels_8_bit] * 3),
    }[kind]
    write_tiff(path, pixels, t274=orientation)
    return stretch_to_uint8(pixels) if kind == "deep tif" else pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["png", "deep png", "deep colour png", "tif", "compressed tif", "deep tif", "colour tif"]
)
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"a.{kind[-3:]}"
    stored = write_image_with_orientation(path, kind, orientation)
    expected = ORIENT[orientation](stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_image_size(path) == expected.shape[:2]


def test_damaged_exif_data_is_ignored(tmp_path: Path) -> None:
    Image.new("L", (4, 2), 9).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF")
    with pytest.raises(SyntaxError), Image.open(tmp_path / "a.png") as image:
        image.getexif()
    assert read_image(tmp_path / "a.png").shape == (2, 4, 3)
    assert read_image_size(tmp_path / "a.png") == (2, 4)


def test_several_pages_raise_an_error_but_smaller_copies_and_masks_do_not(tmp_path: Path) -> None:
    """The annotated page is unknown. Smaller copies and masks do not count as pages."""
    first, second = np.uint8([[1, 2, 3]]), np.uint8([[4, 5, 6]])
    with pytest.raises(DatasetError, match=r"a\.tif: expected one image, got a TIFF of several pages; save the page"):
        read_image(write_tiff(tmp_path / "a.tif", first, second))
    with pytest.raises(DatasetError, match="several pages"):
        read_image(write_tiff(tmp_path / "a.tif", first, first[:, :1], second, t254=[0, 1, 0]))
    result = read_image(write_tiff(tmp_path / "a.tif", first, second[:, :1], second, t254=[0, 1, 4]))
    assert result[..., 0].tolist() == first.tolist()


def test_the_first_frame_of_an_animated_gif_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (3, 2), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif") == 10).all()


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.zeros((2, 3, 3), np.float32), {}),
        (np.zeros((2, 3, 2), np.float32), {}),
        (np.zeros((2, 3, 5), np.uint16), {"t262": 1}),
        (np.zeros((2, 3), np.float64), {}),
        (NOISE, {"planar": True}),
        (np.zeros((2, 3, 3), np.uint8), {"t262": 8}),  # CIELab
    ],
)
def test_unsupported_tiffs_raise_an_error_with_a_remedy(
    tmp_path: Path, pixels: NDArray[Any], options: dict[str, Any]
) -> None:
    path = write_tiff(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(DatasetError, match=r"a\.tif: .*; save it as 8-bit RGB, or as greyscale of 16 bits$"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_raise_a_dataset_error(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 9 if "deep" in name else noise).save(path)
    read_image(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DatasetError, match=f"{name}: the image does not decode: "):
        read_image(path)


def test_decompression_bombs_raise_an_error_that_names_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"x"))
    limit = 2 * int(Image.MAX_IMAGE_PIXELS or 0)
    for read in (read_image, read_image_size):
        with pytest.raises(DatasetError, match=rf"a\.png: .* {limit} pixels, got .*; .*tiles.*MAX_PIXELS=2500000000"):
            read(path)


def test_paths_that_are_not_image_files_raise_a_dataset_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would never return
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "text.png").write_text("no image")
    for read in (read_image, read_image_size):
        for name in ("pipe.png", "folder.png"):
            with pytest.raises(DatasetError, match=f"{name}: .*this is a folder, a pipe or a device; give a file"):
                read(tmp_path / name)
        with pytest.raises(DatasetError, match=r"gone\.png: the image is missing; complete the download"):
            read(tmp_path / "gone.png")
        for name in ("loop.png", f"{'long' * 99}.png", "nul\0.png"):
            with pytest.raises(DatasetError):
                read(tmp_path / name)
        with pytest.raises(DatasetError, match=r"text\.png: .*: unknown file format; replace the file"):
            read(tmp_path / "text.png")


def test_an_unexpected_size_raises_a_dataset_error(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"expected 3 x 2 pixels, got \(2, 3\)"):
        read_image(tmp_path / "a.png", (3, 2))


def test_pixels_are_writable_and_independent_of_the_file(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "a.tif")
    image, pixels = open_image(tmp_path / "a.tif"), read_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"")
    assert image.getpixel((2, 1)) == 7
    pixels[:] = 0


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "i4", "u4", "i8", "f4", ">f4", "f8"])
def test_a_ramp_of_any_dtype_is_stretched(dtype: str) -> None:
    stretched = stretch_to_uint8(RAMP.astype(dtype))
    assert stretched.dtype == np.uint8
    np.testing.assert_array_equal(stretched, STRETCHED_RAMP)


@pytest.mark.parametrize("dtype", ["u2", ">u2", "f4", "i4"])
def test_arrays_larger_than_a_block_are_stretched_the_same_way(dtype: str) -> None:
    """The array exceeds a block and the number of 16-bit levels. A repeated ramp keeps its percentiles."""
    copies = image_io.BLOCK // RAMP.size + 2
    stretched = stretch_to_uint8(np.tile(RAMP, (copies, 1)).astype(dtype))
    np.testing.assert_array_equal(stretched[:3], stretch_to_uint8(np.tile(RAMP, (copies, 1)))[:3])
    np.testing.assert_array_equal(stretched, np.tile(stretched[:3], (copies, 1)))
    assert (np.abs(stretched[:3].astype(int) - STRETCHED_RAMP) <= 1).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7, 7, 7], [0, 0, 0]),
        ([0.0, np.nan, 10.0], [0, 0, 255]),
        ([np.inf, -np.inf, 1.0, 2.0], [0, 0, 0, 255]),
        ([np.nan, np.inf], [0, 0]),
        ([-1e308, 0.0, 1e308], [0, 128, 255]),  # 127.5 is rounded to even
        ([-(2**62), 2**62], [0, 255]),
        ([], []),
    ],
)
def test_nan_infinite_and_constant_values(
    values: list[float], expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    assert stretch_to_uint8(np.array([values]), (0, 100), "a.tif").tolist() == [expected]
    bad = len(values) - int(np.isfinite(values).sum())
    messages = [f"a.tif: {bad} values are NaN or infinite and become 0"] if bad else []
    assert [record.getMessage() for record in caplog.records] == messages


def test_equal_percentiles_give_a_step_and_large_percentiles_do_not_overflow() -> None:
    # Both percentiles are among the many zeros: brighter values are white.
    np.testing.assert_array_equal(stretch_to_uint8(np.eye(100), (0.5, 50)), np.eye(100) * 255)
    # Percentiles that interpolate between extremes of opposite sign overflow the type of the values.
    assert stretch_to_uint8(np.float32([[-3e38, 3e38]]), (30, 60)).tolist() == [[0, 255]]


@given(hnp.arrays(st.sampled_from([np.int16, np.uint8, np.uint16, np.float32, np.float64, np.int64]), (2, 3, 4)))
def test_stretching_keeps_the_order(values: NDArray[Any]) -> None:
    stretched = stretch_to_uint8(values, (5, 95))
    finite = np.isfinite(values.astype(np.float64))
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(stretched[finite][order].astype(int)) >= 0).all()
    assert not stretched[~finite].any()
