"""The reader of instance label maps, on pairs of files written by Pillow."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats.base import DatasetImage
from segkit.formats.coco import build_panoptic_annotation
from segkit.formats.label_images import InstanceMapReader
from segkit.structures import Segment
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.deep_files import write_tiff

# 2 and 900 are objects (900 in two pieces, the ids between them unused), 0 background.
MAP = np.array([[900, 0, 2], [0, 900, 2]], dtype=np.uint16)


def write_pair(root: Path, name: str = "cell", labels: np.ndarray = MAP, suffix: str = ".png") -> Path:
    """Writes an image and its label map; returns the path of the label map."""
    for folder, pixels in (("images", np.zeros((*labels.shape, 3), dtype=np.uint8)), ("labels", labels)):
        path = root / folder / f"{name}{suffix if folder == 'labels' else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return path


def test_objects_keep_their_values_and_background_is_stuff(tmp_path: Path) -> None:
    write_pair(tmp_path)
    reader = InstanceMapReader(tmp_path, thing="nucleus")
    assert [(c.category_id, c.name, c.isthing) for c in reader.categories.categories] == [
        (1, "nucleus", True),
        (2, "background", False),
    ]
    assert reader.images == (DatasetImage("cell", "cell.png", (2, 3)),)
    segmentation = reader.read_segmentation(reader.images[0])
    # The background gets the id after the last.
    np.testing.assert_array_equal(segmentation.segment_ids, [[900, 901, 2], [901, 900, 2]])
    assert segmentation.segment_ids.dtype == np.int32
    assert segmentation.segments == (Segment(2, 1, True, 2), Segment(900, 1, True, 2), Segment(901, 2, False, 2))
    assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [2, 2]
    assert reader.read_image(reader.images[0]).shape == (2, 3, 3)


def test_without_a_background_class_the_background_is_void(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, "empty", np.zeros((1, 2), dtype=np.uint8))
    reader = InstanceMapReader(tmp_path, background=None)
    assert [c.name for c in reader.categories.categories] == ["object"]
    cell, empty = (reader.read_segmentation(image) for image in reader.images)
    np.testing.assert_array_equal(cell.segment_ids, MAP)
    assert [s.segment_id for s in cell.segments] == [2, 900]
    assert empty.segments == ()
    assert not empty.segment_ids.any()
    with_background = InstanceMapReader(tmp_path)
    assert with_background.read_segmentation(with_background.images[1]).segments == (Segment(1, 2, False, 2),)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_all_kinds_of_label_maps_are_read(tmp_path: Path, suffix: str) -> None:
    small = np.where(MAP == 900, 7, MAP).astype(np.uint8)
    grey = Image.fromarray(small).convert("L")
    palette_image = Image.frombytes("P", grey.size, grey.tobytes())
    palette_image.putpalette([255, 255, 255] * 8)  # all colours are equal: the indices are the labels
    kinds = {"small": Image.fromarray(small), "wide": Image.fromarray(MAP), "palette": palette_image}
    if suffix != ".png":
        kinds["int32"] = Image.fromarray(MAP.astype(np.int32))
    for name, image in kinds.items():
        image.save(write_pair(tmp_path, name, suffix=suffix))
    reader = InstanceMapReader(tmp_path, background=None)
    assert len(reader.images) == len(kinds)
    for image in reader.images:
        expected = small if image.image_id in ("small", "palette") else MAP
        np.testing.assert_array_equal(reader.read_segmentation(image).segment_ids, expected)


def test_pairs_in_sub_folders_with_any_image_suffix_are_found(tmp_path: Path) -> None:
    write_pair(tmp_path, "b/cell.1")
    write_pair(tmp_path, "a/cell")
    (tmp_path / "images/a/cell.png").rename(tmp_path / "images/a/cell.bmp")
    (tmp_path / "images/.hidden").mkdir()
    for junk in ("images/.hidden/c.png", "images/._a.png", "images/Thumbs.db", "labels/notes.txt"):
        (tmp_path / junk).write_text("junk")
    images = InstanceMapReader(tmp_path).images
    assert [(i.image_id, i.file_name) for i in images] == [("a/cell", "a/cell.bmp"), ("b/cell.1", "b/cell.1.png")]
    (tmp_path / "labels").rename(tmp_path / "masks")
    assert InstanceMapReader(tmp_path, labels="masks").images == images


def test_a_split_does_not_depend_on_other_files(tmp_path: Path) -> None:
    for number in range(20):
        write_pair(tmp_path, f"cell{number}")
    halves = {
        split: {i.image_id for i in InstanceMapReader(tmp_path, split=split).images} for split in ("train", "val")
    }
    assert len(halves["train"]) + len(halves["val"]) == 20
    assert not halves["train"] & halves["val"]
    for number in range(20, 40):
        write_pair(tmp_path, f"cell{number}")
    for split, before in halves.items():
        assert before < {i.image_id for i in InstanceMapReader(tmp_path, split=split).images}
    with pytest.raises(DatasetError, match="expected images in the split val, got none of 40; change val_share"):
        InstanceMapReader(tmp_path, split="val", val_share=0)


def test_incomplete_and_ambiguous_pairs_raise_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"images: no such folder; expected images/NAME"):
        InstanceMapReader(tmp_path)
    path = write_pair(tmp_path)
    path.unlink()
    with pytest.raises(DatasetError, match=r"labels: expected files named .*\.tiff, found none"):
        InstanceMapReader(tmp_path)
    write_pair(tmp_path, "other")
    (tmp_path / "images/other.png").unlink()
    with pytest.raises(DatasetError, match=r"cell\.png: no label map has the image's name \(1 of 1 files\); expected"):
        InstanceMapReader(tmp_path)
    write_pair(tmp_path)
    with pytest.raises(DatasetError, match=r"labels.other\.png: no image has the label map's name \(1 of 2 files\)"):
        InstanceMapReader(tmp_path)
    write_pair(tmp_path, "other")
    Image.fromarray(MAP).save(tmp_path / "labels/other.tif")
    with pytest.raises(DatasetError, match=r"expected one file of a name, got other\.\w+ and other\.\w+"):
        InstanceMapReader(tmp_path)


def test_different_sizes_raise_a_dataset_error_when_opened(tmp_path: Path) -> None:
    path = write_pair(tmp_path)
    Image.fromarray(MAP.T).save(path)
    with pytest.raises(DatasetError, match=r"cell\.png: expected 2 x 3 pixels .*, got 3 x 2"):
        InstanceMapReader(tmp_path)
    # Rotated by its EXIF orientation, the image has the size of the map.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(tmp_path / "images/cell.png", exif=exif)
    reader = InstanceMapReader(tmp_path)
    assert reader.images[0].size_hw == (3, 2) == reader.read_image(reader.images[0]).shape[:2]
    path.unlink()
    Image.fromarray(MAP).save(path.with_suffix(".tif"))
    with pytest.raises(DatasetError, match=r"cell\.tif: expected 3 x 2 pixels"):
        InstanceMapReader(tmp_path)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("cell.png", Image.new("RGB", (3, 2)), "expected a greyscale or palette PNG .*, got 8-bit RGB"),
        ("cell.tif", Image.new("RGB", (3, 2)), "expected integers in one channel, got the mode RGB; save it"),
        ("cell.tif", Image.new("F", (3, 2)), "expected integers in one channel, got the mode F"),
        ("cell.tif", Image.new("I", (3, 2), -1), r"expected values in 0\.\.16777214, got -1\.\.-1"),
        ("cell.tif", Image.new("I", (3, 2), 2**24 - 1), r"expected values in 0\.\.16777214, got 16777215"),
    ],
)
def test_images_that_are_no_label_maps_raise_a_dataset_error(
    tmp_path: Path, name: str, image: Image.Image, message: str
) -> None:
    write_pair(tmp_path).unlink()
    image.save(tmp_path / "labels" / name)
    reader = InstanceMapReader(tmp_path)
    with pytest.raises(DatasetError, match=f"{name}: {message}"):
        reader.read_segmentation(reader.images[0])


def test_the_orientation_of_a_tiff_is_applied(tmp_path: Path) -> None:
    write_pair(tmp_path, labels=np.rot90(MAP, -1)).unlink()
    stored = Image.fromarray(MAP)
    stored.save(tmp_path / "labels/cell.tif", tiffinfo={274: 6})  # a viewer rotates it clockwise
    reader = InstanceMapReader(tmp_path, background=None)
    assert reader.images[0].size_hw == (3, 2)
    np.testing.assert_array_equal(reader.read_segmentation(reader.images[0]).segment_ids, np.rot90(MAP, -1))


def test_tiffs_of_many_pages_or_with_white_zero_raise_a_dataset_error(tmp_path: Path) -> None:
    write_pair(tmp_path).unlink()
    path = tmp_path / "labels/cell.tif"
    page = Image.fromarray(MAP)
    page.save(path, save_all=True, append_images=[page])
    reader = InstanceMapReader(tmp_path)
    with pytest.raises(DatasetError, match=r"cell\.tif: expected one image, got a TIFF of several pages"):
        reader.read_segmentation(reader.images[0])
    page.save(path, tiffinfo={262: 0})
    with pytest.raises(DatasetError, match=r"got the mode I;16, white being 0"):
        reader.read_segmentation(reader.images[0])


def test_reduced_copies_in_a_tiff_are_ignored(tmp_path: Path) -> None:
    """A pyramid's second page is the first one's left column, marked as a reduced copy of it."""
    write_pair(tmp_path).unlink()
    write_tiff(tmp_path / "labels/cell.tif", MAP, MAP[:, :1], t254=[0, 1])
    reader = InstanceMapReader(tmp_path, background=None)
    np.testing.assert_array_equal(reader.read_segmentation(reader.images[0]).segment_ids, MAP)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_error_names_a_damaged_map(tmp_path: Path, suffix: str) -> None:
    write_pair(tmp_path).unlink()
    path = write_pair(tmp_path, labels=np.arange(6000, dtype=np.uint16).reshape(60, 100), suffix=suffix)
    reader = InstanceMapReader(tmp_path)
    content_before = path.read_bytes()
    for size in (0, 30, len(content_before) // 2):
        path.write_bytes(content_before[:size])
        with pytest.raises(DatasetError, match=f"cell\\{suffix}: "):
            reader.read_segmentation(reader.images[0])
    path.unlink()
    with pytest.raises(DatasetError, match=f"cell\\{suffix}: (expected a file, found nothing|the image is missing)"):
        reader.read_segmentation(reader.images[0])
    write_pair(tmp_path, labels=MAP.T, suffix=suffix)
    with pytest.raises(DatasetError, match=f"cell\\{suffix}: expected 60 x 100 pixels .*, got 3 x 2"):
        reader.read_segmentation(reader.images[0])


def test_decompression_bombs_and_loops_of_symlinks_raise_a_dataset_error(tmp_path: Path) -> None:
    path = write_pair(tmp_path)
    image = tmp_path / "images/cell.png"
    valid_bytes = image.read_bytes()
    bomb = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)), (b"IDAT", b"")):
        bomb += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    image.write_bytes(bomb)
    with pytest.raises(DatasetError, match=r"images/cell\.png: expected at most 178956970 pixels"):
        InstanceMapReader(tmp_path)
    image.write_bytes(b"text")
    with pytest.raises(DatasetError, match=r"images/cell\.png: expected an image, got none"):
        InstanceMapReader(tmp_path)
    image.write_bytes(valid_bytes)
    for loop in (image, path):
        content = loop.read_bytes()
        loop.unlink()
        loop.symlink_to(loop.name)
        with pytest.raises(DatasetError, match=r"cell\.png"):
            InstanceMapReader(tmp_path)
        loop.unlink()
        loop.write_bytes(content)
    os.symlink(tmp_path, tmp_path / "images/round", target_is_directory=True)
    assert len(InstanceMapReader(tmp_path).images) == 1


def test_inconsistent_options_raise_a_config_error(tmp_path: Path) -> None:
    write_pair(tmp_path)
    for options, message in (
        ({"thing": "a", "background": "a"}, "expected two names for thing and background"),
        ({"thing": ""}, "expected two names"),
        ({"split": "test"}, "expected split to be"),
        ({"val_share": 1.5}, "expected val_share"),
        ({"val_share": float("nan")}, "expected val_share"),
        ({"labels": "images"}, "expected two folders"),
    ):
        with pytest.raises(ConfigError, match=message):
            InstanceMapReader(tmp_path, **options)


def test_segmentations_are_converted_to_coco_panoptic(tmp_path: Path) -> None:
    write_pair(tmp_path)
    reader = InstanceMapReader(tmp_path)
    entry = build_panoptic_annotation("cell", "cell.png", reader.read_segmentation(reader.images[0]))
    assert [(i["id"], i["category_id"], i["bbox"]) for i in entry["segments_info"]] == [
        (2, 1, [2, 0, 1, 2]),
        (900, 1, [0, 0, 2, 2]),
        (901, 2, [0, 0, 2, 2]),
    ]


def test_all_issues_are_reported_and_valid_images_stay(tmp_path: Path) -> None:
    for name in ("z/last", "bare", "alone", "twice", "both", "small", "torn", "torn_map", "first"):
        write_pair(tmp_path, name)
    (tmp_path / "labels/bare.png").unlink()
    (tmp_path / "images/alone.png").unlink()
    Image.fromarray(MAP.T).save(tmp_path / "labels/twice.tif")
    Image.new("L", (1, 1)).save(tmp_path / "images/both.bmp")
    Image.fromarray(MAP.T).save(tmp_path / "labels/small.png")
    (tmp_path / "images/torn.png").write_bytes(b"torn")
    (tmp_path / "labels/torn_map.png").write_bytes(b"torn")
    (tmp_path / "images/loop.png").symlink_to("loop.png")
    (tmp_path / "labels/loop.png").symlink_to("loop.png")
    (tmp_path / "images/both.png").rename(tmp_path / "images/both.jpg")
    issues: list[tuple[str, str]] = []

    def on_issue(code: str, error: DatasetError) -> None:
        issues.append((code, str(error).removeprefix(f"{tmp_path}/").split(": ")[0]))

    reader = InstanceMapReader(tmp_path, on_issue=on_issue)
    assert issues == [
        ("image-id-twice", "images/both.jpg"),
        ("annotation-twice", "labels/twice.tif"),
        ("image-without-annotation", "images/bare.png"),
        ("image-missing", "labels/alone.png"),
        ("size-differs", "labels/both.png"),
        ("image-missing", "images/loop.png"),
        ("size-differs", "labels/small.png"),
        ("image-unreadable", "images/torn.png"),
        ("png-unreadable", "labels/torn_map.png"),
    ]
    assert [image.image_id for image in reader.images] == ["first", "twice", "z/last"]
    for image in reader.images:
        assert len(reader.read_segmentation(image).segments) == 3
        assert reader.read_image(image).shape == (2, 3, 3)
    first_issues, issues = issues, []
    InstanceMapReader(tmp_path, on_issue=on_issue)
    assert issues == first_issues


def test_a_dataset_without_valid_pairs_is_empty(tmp_path: Path) -> None:
    write_pair(tmp_path).unlink()
    write_pair(tmp_path, "other")
    (tmp_path / "images/other.png").unlink()
    codes: list[str] = []
    reader = InstanceMapReader(tmp_path, on_issue=lambda code, error: codes.append(code))
    assert reader.images == ()
    assert codes == ["image-without-annotation", "image-missing"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_pipes_raise_an_error_at_once(tmp_path: Path, folder: str) -> None:
    write_pair(tmp_path)
    (tmp_path / folder / "cell.png").unlink()
    os.mkfifo(tmp_path / folder / "cell.png")
    with pytest.raises(DatasetError, match=rf"{folder}.cell\.png: "):
        InstanceMapReader(tmp_path)


@pytest.mark.parametrize("folder", ["../..", "/tmp", "", 3])
def test_folders_outside_the_root_raise_a_dataset_error(tmp_path: Path, folder: Any) -> None:
    write_pair(tmp_path)
    for key in ("images", "labels"):
        with pytest.raises(DatasetError, match=f"expected `{key}` to be a path inside its folder"):
            InstanceMapReader(tmp_path, **{key: folder})


@pytest.mark.parametrize("names", [{"thing": [1]}, {"thing": None}, {"background": 3}, {"background": ["a"]}])
def test_names_that_are_no_text(tmp_path: Path, names: dict[str, Any]) -> None:
    write_pair(tmp_path)
    with pytest.raises(ConfigError, match="expected two names for thing and background"):
        InstanceMapReader(tmp_path, **names)
    with pytest.raises(ConfigError, match="expected val_share to be a number in"):
        InstanceMapReader(tmp_path, val_share=True)


def find_issues(root: Path, **options: Any) -> list[tuple[str, str, str]]:
    issues: list[tuple[str, str, str]] = []
    reader = InstanceMapReader(root, **options)
    for image in reader.images:
        reader.check_annotation(image, lambda c, error: issues.append((c, Path(error.where).name, error.problem)))
    return issues


def test_connected_components_are_objects_on_request(tmp_path: Path) -> None:
    """A binary mask: pieces that touch at a corner are one, equal values apart are two."""
    mask = np.array([[9, 0, 0, 9], [0, 9, 0, 9], [0, 0, 0, 0], [4, 4, 0, 9]], dtype=np.uint8)
    write_pair(tmp_path, labels=mask)
    reader = InstanceMapReader(tmp_path, background=None, connected_components=True)
    segmentation = reader.read_segmentation(reader.images[0])
    # Numbered by value, then by first pixel.
    expected = [[2, 0, 0, 3], [0, 2, 0, 3], [0, 0, 0, 0], [1, 1, 0, 4]]
    np.testing.assert_array_equal(segmentation.segment_ids, expected)
    assert segmentation.segments == tuple(Segment(i, 1, True, area) for i, area in ((1, 2), (2, 2), (3, 2), (4, 1)))
    with pytest.raises(ConfigError, match="expected connected_components to be true or false, got 1"):
        InstanceMapReader(tmp_path, connected_components=1)  # type: ignore[arg-type]


def test_masks_that_are_no_instance_maps_are_reported(tmp_path: Path) -> None:
    binary = np.zeros((9, 9), dtype=np.uint8)
    binary[:3, :3] = binary[5:, 5:] = 255
    write_pair(tmp_path, "binary", binary)
    classes = np.zeros((9, 9), dtype=np.uint8)
    classes[::2, ::4], classes[::2, 2::4] = 1, 2  # 15 and 10 pieces
    write_pair(tmp_path, "classes", classes)
    cut = np.zeros((9, 9), dtype=np.uint8)
    cut[:, :2] = cut[:, 4:6] = 1  # one object of two that another one cuts
    cut[:, 7:] = 2
    write_pair(tmp_path, "cut", cut)
    write_pair(tmp_path, "empty", np.zeros((9, 9), dtype=np.uint8))
    write_pair(tmp_path, "one", np.where(binary > 0, np.arange(9) < 4, 0).astype(np.uint8))
    assert find_issues(tmp_path) == [
        ("objects-merged", "binary.png", "1 values in 2 connected pieces, as if it were a binary mask"),
        ("objects-merged", "classes.png", "2 values in 25 connected pieces, as if it were a map of classes"),
    ]
    assert find_issues(tmp_path, connected_components=True) == []


def test_interpolated_maps_are_reported(tmp_path: Path) -> None:
    blocks = np.kron(np.arange(16).reshape(4, 4) * 15, np.ones((12, 12))).astype(np.uint8)
    write_pair(tmp_path, "blocks", blocks)
    write_pair(tmp_path, "blurred", np.asarray(Image.fromarray(blocks).resize((60, 60), Image.Resampling.BILINEAR)))
    points = np.zeros((40, 40), dtype=np.uint8)
    points[::4, ::4] = np.arange(1, 101).reshape(10, 10)  # objects of one pixel
    write_pair(tmp_path, "points", points)
    ((code, name, problem),) = find_issues(tmp_path)
    assert (code, name) == ("map-blurred", "blurred.png")
    assert "values have no pixel inside, as if it were interpolated or JPEG" in problem
