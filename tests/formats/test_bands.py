"""Images of any number of channels: .npy, TIFFs of bands and of pages, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation.checks.other_formats import check_dataset
from segkit.curation.convert import convert, list_lost_extras
from segkit.formats.bands import read_bands, read_bands_size, to_rgb
from segkit.formats.image_io import stretch_to_uint8
from segkit.formats.label_images import InstanceMapReader, InstanceMapWriter, SemanticMapReader, SemanticMapWriter
from segkit.utils.errors import ConfigError, DatasetError

PIXELS = np.random.default_rng(2).integers(0, 256, (8, 6, 5), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray, kind: str) -> Path:
    if kind == "npy":
        np.save(path.with_suffix(".npy"), pixels)
        return path.with_suffix(".npy")
    tifffile = pytest.importorskip("tifffile")
    path = path.with_suffix(".tif")
    options = {"bands": {"planarconfig": "contig"}, "planes": {"planarconfig": "separate"}, "pages": {}}[kind]
    stored = pixels if kind == "bands" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(path, stored, photometric="minisblack", compression="zlib", **options)
    return path


@pytest.mark.parametrize("kind", ["npy", "bands", "planes", "pages"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_channels_are_read_from_every_kind_of_file(tmp_path: Path, kind: str, dtype: type) -> None:
    """Bytes stay, other numbers are stretched channel by channel."""
    stored = PIXELS.astype(dtype) * [1, 2, 3, 4, 5] if dtype is not np.uint8 else PIXELS
    path = write(tmp_path / "image", stored.astype(dtype), kind)
    assert read_bands_size(path, 5) == (8, 6)
    pixels = read_bands(str(path), 5, (8, 6))
    expected = PIXELS
    if dtype is not np.uint8:
        expected = np.stack([stretch_to_uint8(stored[..., band].astype(dtype)) for band in range(5)], axis=-1)
    assert np.array_equal(pixels, expected)


def test_one_channel_needs_no_third_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "grey", PIXELS[..., 0], "npy")
    assert np.array_equal(read_bands(path, 1), PIXELS[..., :1])


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_the_first_three_channels_are_shown(channels: int, shown: list[int]) -> None:
    assert np.array_equal(to_rgb(PIXELS[..., :channels]), PIXELS[..., shown])


def test_other_files_are_refused_with_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "image", PIXELS, "npy")
    with pytest.raises(
        DatasetError, match=r"image\.npy: expected 4 channels, got 5 \(8 x 6 x 5 uint8\); set `channels`"
    ):
        read_bands(path, 4)
    with pytest.raises(DatasetError, match="expected 9 x 6 pixels, got 8 x 6"):
        read_bands(path, 5, (9, 6))
    with pytest.raises(DatasetError, match=r"gone\.npy: the image is missing"):
        read_bands(tmp_path / "gone.npy", 5)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="the image does not decode"):
        read_bands(path, 5)
    np.save(path, np.array([{}], dtype=object))  # a pickle, which may run code
    with pytest.raises(DatasetError, match="the image does not decode"):
        read_bands(path, 5)
    np.save(path, np.zeros((2, 2, 2, 5)))
    with pytest.raises(DatasetError, match="expected height, width and channels of numbers, got 2 x 2 x 2 x 5 float64"):
        read_bands(path, 5)
    Image.fromarray(PIXELS[..., :3]).save(tmp_path / "rgb.png")
    with pytest.raises(DatasetError, match=r"rgb\.png: expected an image of 5 channels, as \.npy, \.tif, \.tiff hold"):
        read_bands(tmp_path / "rgb.png", 5)
    (tmp_path / "text.tif").write_text("no image")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        DatasetError, match=r"need tifffile, which is not installed; pip install tifffile, or save it as"
    ):
        read_bands_size(tmp_path / "text.tif", 5)
    monkeypatch.undo()
    pytest.importorskip("tifffile")
    with pytest.raises(DatasetError, match=r"text\.tif: the image does not decode: not a TIFF file"):
        read_bands_size(tmp_path / "text.tif", 5)


@pytest.mark.parametrize("kind", ["npy", "pages"])
def test_label_maps_belong_to_images_of_five_channels(tmp_path: Path, kind: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "images/a", PIXELS, kind)
    Image.fromarray(np.eye(8, 6, dtype=np.uint8)).save(tmp_path / "labels/a.png")
    for reader in (
        SemanticMapReader(tmp_path, classes=["a", "b"], channels=5),
        InstanceMapReader(tmp_path, channels=5),
    ):
        (image,) = reader.images
        assert (image.size_hw, reader.channels) == ((8, 6), 5)
        assert np.array_equal(reader.read_channels(image), PIXELS)
        assert np.array_equal(reader.read_image(image), PIXELS[..., :3])
        assert not check_dataset(reader, map)
        assert list_lost_extras(reader, SemanticMapWriter(tmp_path / "out", reader.categories)) == [
            "2 of the 5 channels of images that are written as PNG"
        ]
    convert(reader, InstanceMapWriter(tmp_path / "out", reader.categories), copy_images=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/images/a.png")), PIXELS[..., :3])
    with pytest.raises(DatasetError, match="expected 4 channels, got 5"):
        InstanceMapReader(tmp_path, channels=4)
    with pytest.raises(ConfigError, match="expected `channels` to be a whole number from 1, got 0"):
        InstanceMapReader(tmp_path, channels=0)
    without = "expected one image, got a TIFF of several pages.*set `channels`" if kind == "pages" else r"found none"
    with pytest.raises(DatasetError, match=without):
        read_first(tmp_path)


def read_first(root: Path) -> np.ndarray:
    reader = InstanceMapReader(root)
    return reader.read_image(reader.images[0])
