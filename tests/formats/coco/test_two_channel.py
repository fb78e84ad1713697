"""2-channel PNGs: red the category, green the number of its segment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation.issues import RULES
from segkit.formats.base import DatasetImage
from segkit.formats.coco import TwoChannelReader, TwoChannelWriter
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])


def save_image(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size_hw, 3), 90, dtype=np.uint8)).save(path)


def two_channels(folder: Path, red: list[list[int]], green: list[list[int]], blue: int = 0) -> TwoChannelReader:
    pixels = np.stack([np.array(red), np.array(green), np.full_like(np.array(red), blue)], axis=2).astype(np.uint8)
    (folder / "masks").mkdir()
    Image.fromarray(pixels).save(folder / "masks" / "a.png")
    save_image(folder / "images" / "a.jpg", pixels.shape[:2])
    (folder / "c.json").write_text(json.dumps(CATEGORIES.to_coco()))
    return TwoChannelReader(folder / "masks", folder / "images", folder / "c.json")


def test_two_channels(tmp_path: Path) -> None:
    """Two cats, numbers 0 and 1, sky, and a void pixel."""
    source = two_channels(tmp_path, [[3, 3, 9], [3, 0, 9]], [[0, 1, 0], [1, 0, 0]])
    (image,) = source.images
    found = source.read_segmentation(image)
    assert (image.image_id, image.file_name, image.size_hw) == ("a", "a.jpg", (2, 3))
    assert found.segment_ids.tolist() == [[3, 3 + 256, 9], [3 + 256, 0, 9]]
    assert [(s.category_id, s.isthing, s.area_px) for s in found.segments] == [
        (3, True, 1),
        (9, False, 2),
        (3, True, 2),
    ]


@pytest.mark.parametrize(("red", "blue"), [([[4, 3]], 0), ([[3, 3]], 1)])
def test_two_channels_that_are_something_else(tmp_path: Path, red: list[list[int]], blue: int) -> None:
    source = two_channels(tmp_path, red, [[0, 0]], blue)
    with pytest.raises(DatasetError, match="expected a category id in R, a number in G and 0 in B"):
        source.read_segmentation(source.images[0])


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    """A notebook leaves copies of what it opened."""
    two_channels(tmp_path, [[3]], [[0]])
    (tmp_path / "masks/.ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "masks/a.png", tmp_path / "masks/.ipynb_checkpoints/a-checkpoint.png")
    source = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
    assert [image.image_id for image in source.images] == ["a"]


def test_two_channels_without_their_image(tmp_path: Path) -> None:
    two_channels(tmp_path, [[3]], [[0]])
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "b.jpg")
    with pytest.raises(DatasetError, match=r"a\.png: expected an image a\.\* in .*images, found none; complete"):
        TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")


def test_two_channels_in_folders(tmp_path: Path) -> None:
    """Two PNGs of one name in two folders are two images."""
    source = two_channels(tmp_path, [[3, 9]], [[0, 0]])
    assert source.images[0].image_id == "a"
    (tmp_path / "masks" / "deep").mkdir()
    Image.fromarray(np.array([[[9, 0, 0]]], dtype=np.uint8)).save(tmp_path / "masks" / "deep" / "a.png")
    save_image(tmp_path / "images" / "deep" / "a.png", (1, 1))
    source = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
    assert [(i.image_id, i.file_name) for i in source.images] == [("a", "a.jpg"), ("deep/a", "deep/a.png")]
    assert [source.read_segmentation(i).segment_ids.tolist() for i in source.images] == [[[3, 9]], [[9]]]


def test_all_faults_of_two_channels_are_told(tmp_path: Path) -> None:
    two_channels(tmp_path, [[3, 9]], [[0, 0]])
    for name in ("bare", "lone", "torn", "z"):
        shutil.copy(tmp_path / "masks" / "a.png", tmp_path / "masks" / f"{name}.png")
    for name in ("torn", "z", "unlabelled"):
        save_image(tmp_path / "images" / f"{name}.jpg", (1, 2))
    (tmp_path / "masks" / "torn.png").write_bytes(b"torn")
    told: list[tuple[str, str]] = []
    source = TwoChannelReader(
        tmp_path / "masks",
        tmp_path / "images",
        tmp_path / "c.json",
        on_issue=lambda code, error: told.append((code, Path(error.where).name)),
    )
    assert told == [("image-missing", "bare.png"), ("image-missing", "lone.png"), ("png-unreadable", "torn.png")]
    assert {code for code, _ in told} <= {*RULES}
    assert [image.image_id for image in source.images] == ["a", "z"]
    assert source.skipped == (f"{tmp_path}/images: 1 images have no PNG: 'unlabelled'",)
    for image in source.images:
        assert source.read_segmentation(image).segment_ids.tolist() == [[3, 9]]
        assert source.read_image(image).shape == (1, 2, 3)


def test_written_and_read_back(tmp_path: Path) -> None:
    """Two cats, a crowd of cats and a cat without a pixel, sky and void: cats are numbered 0, 1, 2 as they come."""
    cats = Segment(8, 3, True, 2), Segment(2, 3, True, 1), Segment(7, 3, True, 0)
    others = Segment(5, 9, False, 1), Segment(4, 3, True, 1, iscrowd=True)
    ground_truth = PanopticSegmentation(np.array([[8, 8, 2], [5, 4, 0]], np.int32), (*cats, *others))
    image = DatasetImage("x", "deep/a.jpg", (2, 3))
    with TwoChannelWriter(tmp_path, CATEGORIES) as writer:
        told = writer.add(image, ground_truth)
        with pytest.raises(DatasetError, match="was added before"):
            writer.add(image, ground_truth)
    assert told == ["segment 7: it has no pixel", "1 crowds become objects"]
    assert np.asarray(Image.open(tmp_path / "masks" / "deep" / "a.png"))[..., :2].tolist() == [
        [[3, 0], [3, 0], [3, 1]],
        [[9, 0], [3, 2], [0, 0]],
    ]
    save_image(writer.image_path(image), (2, 3))
    source = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "categories.json")
    assert source.categories == CATEGORIES
    assert [(s.category_id, s.area_px) for s in source.read_segmentation(source.images[0]).segments] == [
        (3, 2),
        (9, 1),
        (3, 1),
        (3, 1),
    ]


def test_what_does_not_fit_into_a_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected category ids in 1\.\.255, got 256"):
        TwoChannelWriter(tmp_path, CategorySet([Category(256, "cat", True, (1, 2, 3))]))
    ids = np.arange(1, 258, dtype=np.int32)[None]
    many = PanopticSegmentation(ids, tuple(Segment(i, 3, True, 1) for i in range(1, 258)))
    with pytest.raises(DatasetError, match="at most 256 segments of a category, got 257"):
        TwoChannelWriter(tmp_path, CATEGORIES).add(DatasetImage("x", "a.jpg", (1, 257)), many)
    assert not (tmp_path / "masks").exists()


def test_images_of_any_suffix(tmp_path: Path) -> None:
    source = two_channels(tmp_path, [[3, 9]], [[0, 0]])
    assert source.skipped == ()
    (tmp_path / "images" / "a.jpg").unlink()
    for suffix in (".bmp", ".TIF", ".webp"):
        path = tmp_path / "images" / f"a{suffix}"
        save_image(path, (1, 2))
        source = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
        assert source.read_image(source.images[0]).tolist() == [[[90] * 3] * 2]
        path.unlink()
    for suffix in (".bmp", ".png"):
        save_image(tmp_path / "images" / f"a{suffix}", (1, 2))
    with pytest.raises(DatasetError, match=r"a\.png: expected one file of a name, got a\.bmp and a\.png"):
        TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")


def test_overlaps_are_told(tmp_path: Path) -> None:
    ground_truth = PanopticSegmentation(np.array([[1, 1]], np.int32), (Segment(1, 3, True, 2),))
    masks = np.array([[1, 1]], bool), np.array([[0, 1]], bool)
    annotations = [{"segmentation": mask_to_rle(mask)} for mask in masks]
    told = TwoChannelWriter(tmp_path, CATEGORIES).add(DatasetImage(1, "a.png", (1, 2)), ground_truth, annotations)
    assert told == ["annotations: 1 pixels under other masks cannot be held"]
