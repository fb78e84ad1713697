"""What a look at a picture tells: deep ones, turned TIFFs, kinds that are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation.pictures import look_at
from tests.formats.deep_files import GREY_ALPHA, RGB, write_png16, write_tiff

NOISE = np.random.default_rng(5).integers(0, 4096, (4, 6, 3)).astype(np.uint16)


def codes(path: Path) -> list[str]:
    return [finding.code for finding in look_at(path, "here").findings]


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "u4", "f4"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_deep_pictures_are_noted(tmp_path: Path, dtype: str, big_endian: bool) -> None:
    big_endian = big_endian and dtype != "u4"  # which Pillow reads of little-endian files only
    path = write_tiff(tmp_path / "a.tif", NOISE[..., 0].astype(dtype), big_endian=big_endian)
    look = look_at(path, "here")
    assert [(finding.code, finding.severity) for finding in look.findings] == [("image-deep", "note")]
    assert look.size_hw == (4, 6)
    other = look_at(write_tiff(tmp_path / "b.tif", NOISE[..., 1].astype(dtype), big_endian=big_endian), "here")
    assert look.digest is not None
    assert look.digest == look_at(path, "here").digest != other.digest
    flat = write_tiff(tmp_path / "flat.tif", np.full((4, 6), 3000, dtype), big_endian=big_endian)
    assert look_at(flat, "here").digest is None


def test_deep_colours_are_noted_too(tmp_path: Path) -> None:
    assert codes(write_png16(tmp_path / "a.png", NOISE, RGB)) == ["image-deep"]
    assert codes(write_png16(tmp_path / "a.png", NOISE[..., :2], GREY_ALPHA)) == ["image-deep"]
    assert codes(write_tiff(tmp_path / "a.tif", NOISE)) == ["image-deep"]
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(NOISE.astype(np.uint8)).save(tmp_path / name)
        assert codes(tmp_path / name) == []


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_tiffs_are_told(tmp_path: Path, orientation: int) -> None:
    path = write_tiff(tmp_path / "a.tif", NOISE[..., 0].astype(np.uint8), t274=orientation)
    look = look_at(path, "here")
    assert (look.turned, [finding.code for finding in look.findings]) == (True, ["image-turned"])
    assert look.size_hw == ((6, 4) if orientation == 6 else (4, 6))


def test_what_reading_refuses_is_told(tmp_path: Path) -> None:
    grey = NOISE[..., 0].astype(np.uint8)
    for path in (
        write_tiff(tmp_path / "float.tif", NOISE.astype(np.float32)),
        write_tiff(tmp_path / "pages.tif", grey, grey),
        write_tiff(tmp_path / "planes.tif", NOISE, planar=True),
    ):
        assert codes(path) == ["image-unreadable"]
