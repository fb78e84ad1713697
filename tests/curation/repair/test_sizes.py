"""Wrong sizes in an instances JSON: no mask that fits into the image file is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances
from segkit.curation.repair import repair_instances
from tests.helpers.damaged_datasets import SIZE_HW, Broken, instances, noise

RESIZED = "corrected 1 of the images: height and width are now those of the image file, which the masks fit"
UNKNOWN_SIZE = (
    "left unchanged 1 of the images: with their masks, because it is uncertain whether entry or image file has the "
    "size of the masks"
)
OUTSIDE = [[4, 1, 24, 1, 24, 2, 4, 2]]  # of 8 columns


def repair(data: Broken, content: Any, folder: Path) -> tuple[Any, list[str]]:
    data.store(content)
    copy, lines = repair_instances(data.json_path, data.images, folder, map)
    return Broken(copy, data.masks, data.images).load(), lines


@pytest.mark.parametrize(
    "size",
    [{"height": 2}, {"height": 8, "width": 6}, {"width": 1}, {"height": 1, "width": "1"}, {"height": 0}, {"width": 80},
     {"height": None}],
)  # fmt: skip
def test_a_wrong_entry_gets_the_size_of_the_image_file(tmp_path: Path, size: dict[str, Any]) -> None:
    data = instances(tmp_path / "data")
    clean, content = data.load(), data.load()
    content["images"][0].update(size)
    assert repair(data, content, tmp_path / "copy") == (clean, [RESIZED])


def test_the_entry_of_an_image_without_mask_is_corrected(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    clean = data.load()
    clean["annotations"] = clean["annotations"][2:]
    content = {**clean, "images": [{**clean["images"][0], "height": 2}, *clean["images"][1:]]}
    assert repair(data, content, tmp_path / "copy") == (clean, [RESIZED])


@pytest.mark.parametrize("image_content", [None, b"", b"not an image"])
@pytest.mark.parametrize("size", [{}, {"height": 2}, {"height": 8, "width": 6}])
def test_without_an_image_file_no_mask_is_cut_off(tmp_path: Path, image_content, size: dict[str, int]) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    content["images"][0].update(size)
    if not size:
        content["annotations"][0].update(segmentation=OUTSIDE)
    data.image_path().unlink()
    if image_content is not None:
        data.image_path().write_bytes(image_content)
    assert repair(data, content, tmp_path / "copy") == (content, [UNKNOWN_SIZE])


def test_without_an_image_file_masks_inside_the_entrys_size_are_measured_and_empty_ones_stay(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    clean, content = data.load(), data.load()
    data.image_path().unlink()
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    assert repair(data, content, tmp_path / "copy") == (clean, [])
    content = clean
    content["annotations"][0].update(segmentation=[[1, 1, 1, 1, 1, 1]])
    assert repair(data, content, tmp_path / "empty") == (content, [])


def test_an_image_file_that_the_masks_do_not_fit_changes_nothing(tmp_path: Path) -> None:
    """Image 0: the file is too small. Image 1: file and entry are. Image 2: both agree, and the mask is cut off."""
    data = instances(tmp_path / "data")
    content = data.load()
    for index in (0, 1):
        Image.fromarray(noise(index)[:2, :2]).save(data.image_path(index))
    content["images"][1].update(height=3)
    for index in (2, 4):
        content["annotations"][index].update(segmentation=OUTSIDE, area=20, bbox=[4, 1, 20, 1])
    copied, lines = repair(data, content, tmp_path / "copy")
    assert copied["images"] == content["images"]
    assert copied["annotations"][:4] == content["annotations"][:4]
    assert copied["annotations"][4]["bbox"] == [4, 1, 4, 1]
    assert sorted(lines) == ["cut off 1 of the masks: they reach beyond the image", UNKNOWN_SIZE]


def test_an_image_that_exif_rotates_corrects_no_entry(tmp_path: Path) -> None:
    """The masks fit the image before and after the rotation: which one is meant is unknown."""
    data = instances(tmp_path / "data")
    content = data.load()
    del content["annotations"][1]  # the one with run lengths
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(noise(0)).save(data.image_path(), exif=exif)
    assert repair(data, content, tmp_path / "copy") == (content, [])
    assert "size-differs" in {issue.code for issue in check_instances(data.json_path, data.images, map)}


def test_many_wrong_entries_are_corrected_without_loss(tmp_path: Path) -> None:
    data = instances(tmp_path / "data")
    clean, content = data.load(), data.load()
    for index, entry in enumerate(content["images"]):
        entry.update(height=SIZE_HW[0] + index - 4, width=index + 1)
    copied, lines = repair(data, content, tmp_path / "copy")
    assert copied == clean
    assert lines == [RESIZED.replace("1", "6")]
