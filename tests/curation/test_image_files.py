"""Inspection of image files: deep images, rotated TIFFs, unsupported kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from segkit.curation.image_files import digest_pixels, inspect_image
from tests.helpers.deep_files import GREY_ALPHA, RGB, write_png16, write_tiff

NOISE = np.random.default_rng(5).integers(0, 4096, (4, 6, 3)).astype(np.uint16)


def codes(path: Path) -> list[str]:
    return [issue.code for issue in inspect_image(path, "here").issues]


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "u4", "f4"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_deep_images_are_reported(tmp_path: Path, dtype: str, big_endian: bool) -> None:
    big_endian = big_endian and dtype != "u4"  # Pillow reads u4 in little-endian files only
    path = write_tiff(tmp_path / "a.tif", NOISE[..., 0].astype(dtype), big_endian=big_endian)
    inspection = inspect_image(path, "here")
    assert [(issue.code, issue.severity) for issue in inspection.issues] == [("image-deep", "note")]
    assert inspection.size_hw == (4, 6)
    other = inspect_image(write_tiff(tmp_path / "b.tif", NOISE[..., 1].astype(dtype), big_endian=big_endian), "here")
    assert inspection.digest is not None
    assert inspection.digest == inspect_image(path, "here").digest != other.digest
    flat = write_tiff(tmp_path / "flat.tif", np.full((4, 6), 3000, dtype), big_endian=big_endian)
    assert inspect_image(flat, "here").digest is None


def test_deep_colours_are_reported(tmp_path: Path) -> None:
    assert codes(write_png16(tmp_path / "a.png", NOISE, RGB)) == ["image-deep"]
    assert codes(write_png16(tmp_path / "a.png", NOISE[..., :2], GREY_ALPHA)) == ["image-deep"]
    assert codes(write_tiff(tmp_path / "a.tif", NOISE)) == ["image-deep"]
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(NOISE.astype(np.uint8)).save(tmp_path / name)
        assert codes(tmp_path / name) == []


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_tiffs_are_reported(tmp_path: Path, orientation: int) -> None:
    path = write_tiff(tmp_path / "a.tif", NOISE[..., 0].astype(np.uint8), t274=orientation)
    inspection = inspect_image(path, "here")
    assert (inspection.is_rotated, [issue.code for issue in inspection.issues]) == (True, ["image-rotated"])
    assert inspection.size_hw == ((6, 4) if orientation == 6 else (4, 6))


def test_unsupported_tiffs_are_reported(tmp_path: Path) -> None:
    grey = NOISE[..., 0].astype(np.uint8)
    for path in (
        write_tiff(tmp_path / "float.tif", NOISE.astype(np.float32)),
        write_tiff(tmp_path / "pages.tif", grey, grey),
        write_tiff(tmp_path / "planes.tif", NOISE, planar=True),
    ):
        assert codes(path) == ["image-unreadable"]


def test_the_digest_depends_on_pixels_not_on_the_file(tmp_path: Path) -> None:
    """Opaque RGBA, a palette and EXIF rotations give equal digests; transparency is not a colour."""
    palette = Image.fromarray(NOISE.astype(np.uint8)).quantize(8)
    palette.save(tmp_path / "palette.png")
    plain = palette.convert("RGB")
    plain.save(tmp_path / "rgb.png")
    plain.convert("RGBA").save(tmp_path / "rgba.png")
    exif = Image.Exif()
    exif[274] = 6
    plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.tif", exif=exif)
    inspections = [inspect_image(path, "here") for path in sorted(tmp_path.iterdir())]
    assert [inspection.is_rotated for inspection in inspections] == [False, False, False, True, True]
    assert {inspection.size_hw for inspection in inspections} == {(4, 6)}
    assert len({inspection.digest for inspection in inspections}) == 1
    assert inspections[0].digest == digest_pixels(np.asarray(plain))
    plain.putpixel((0, 0), (1, 2, 3))
    assert digest_pixels(np.asarray(plain)) != inspections[0].digest
    assert digest_pixels(np.full((4, 6, 3), 7, dtype=np.uint8)) is None


def test_an_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(NOISE.astype(np.uint8)).save(tmp_path / "a.jpg")
    decoded = []
    load = JpegImageFile.load

    def load_and_count(image: JpegImageFile) -> object:
        if image.tile:  # not decoded yet
            decoded.append(image)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", load_and_count)
    assert inspect_image(tmp_path / "a.jpg", "here").digest is not None
    assert len(decoded) == 1


def test_damaged_exif_does_not_hide_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE.astype(np.uint8)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (codes(path), inspect_image(path, "here").size_hw) == ([], (4, 6))
