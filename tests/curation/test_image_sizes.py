"""Images of another size than the annotations: `data convert` stops before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from segkit.cli.main import main
from segkit.curation.convert import check_image_sizes
from segkit.formats.registry import open_reader
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import Broken, instances, panoptic

QUARTER_TURN = 6  # EXIF: shown rotated by 90 degrees


def get_options(data: Broken, format_name: str) -> dict[str, Path]:
    masks = {"masks": data.masks} if format_name == "coco-panoptic" else {}
    return {"json": data.json_path, "images": data.images, **masks}


def convert(data: Broken, format_name: str, output: Path, *more: str) -> int:
    options = [text for key, path in get_options(data, format_name).items() for text in (f"--{key}", str(path))]
    return main(["data", "convert", "--from", format_name, *options, "--to", "voc", "--output", str(output), *more])


@pytest.mark.parametrize("more", [(), ("--skip-images",)])
@pytest.mark.parametrize(("format_name", "write"), [("coco-instances", instances), ("coco-panoptic", panoptic)])
def test_convert_names_the_images_and_writes_nothing(
    tmp_path: Path, format_name: str, write, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data")
    assert convert(data, format_name, tmp_path / "whole", *more) == 0
    for index in (1, 2, 4):
        Image.new("RGB", (6, 8)).save(data.image_path(index))
    assert convert(data, format_name, tmp_path / "out", *more) == 1
    error = capsys.readouterr().err
    assert "3 times:" in error
    assert (
        f"{data.image_path(1)}: expected one size (height x width), got the annotation 6 x 8, the image 8 x 6" in error
    )
    assert "data check --fix" in error
    assert not (tmp_path / "out").exists()


def test_sizes_before_the_rotation_by_exif_are_named(tmp_path: Path) -> None:
    data = instances(tmp_path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = QUARTER_TURN
    with Image.open(data.image_path(3)) as image:
        image.save(data.image_path(3), exif=exif)
    with pytest.raises(DatasetError, match=r"3\.png: .* the image 8 x 6; EXIF rotates the image"):
        check_image_sizes(open_reader("coco-instances", get_options(data, "coco-instances")))


def test_missing_and_unreadable_images_are_not_compared(tmp_path: Path) -> None:
    data = instances(tmp_path)
    data.image_path(0).unlink()
    data.image_path(1).write_bytes(b"no image")
    check_image_sizes(open_reader("coco-instances", get_options(data, "coco-instances")))
