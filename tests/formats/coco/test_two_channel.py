"""2-channel PNGs: red is the category, green the number of the segment in its category."""

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


def write_two_channel_dataset(
    folder: Path, red: list[list[int]], green: list[list[int]], blue: int = 0
) -> TwoChannelReader:
    pixels = np.stack([np.array(red), np.array(green), np.full_like(np.array(red), blue)], axis=2).astype(np.uint8)
    (folder / "masks").mkdir()
    Image.fromarray(pixels).save(folder / "masks" / "a.png")
    save_image(folder / "images" / "a.jpg", pixels.shape[:2])
    (folder / "c.json").write_text(json.dumps(CATEGORIES.to_coco()))
    return TwoChannelReader(folder / "masks", folder / "images", folder / "c.json")


def test_categories_and_segments_are_read_from_the_channels(tmp_path: Path) -> None:
    """Two cats, numbers 0 and 1, sky, and a void pixel."""
    reader = write_two_channel_dataset(tmp_path, [[3, 3, 9], [3, 0, 9]], [[0, 1, 0], [1, 0, 0]])
    (image,) = reader.images
    segmentation = reader.read_segmentation(image)
    assert (image.image_id, image.file_name, image.size_hw) == ("a", "a.jpg", (2, 3))
    assert segmentation.segment_ids.tolist() == [[3, 3 + 256, 9], [3 + 256, 0, 9]]
    assert [(s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [
        (3, True, 1),
        (9, False, 2),
        (3, True, 2),
    ]


@pytest.mark.parametrize(("red", "blue"), [([[4, 3]], 0), ([[3, 3]], 1)])
def test_unknown_categories_and_a_blue_channel_raise_a_dataset_error(
    tmp_path: Path, red: list[list[int]], blue: int
) -> None:
    reader = write_two_channel_dataset(tmp_path, red, [[0, 0]], blue)
    with pytest.raises(DatasetError, match="expected a category id in R, a number in G and 0 in B"):
        reader.read_segmentation(reader.images[0])


def test_hidden_folders_are_skipped(tmp_path: Path) -> None:
    """Jupyter leaves copies of opened files in a hidden folder."""
    write_two_channel_dataset(tmp_path, [[3]], [[0]])
    (tmp_path / "masks/.ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "masks/a.png", tmp_path / "masks/.ipynb_checkpoints/a-checkpoint.png")
    reader = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
    assert [image.image_id for image in reader.images] == ["a"]


def test_a_png_without_its_image_raises_a_dataset_error(tmp_path: Path) -> None:
    write_two_channel_dataset(tmp_path, [[3]], [[0]])
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "b.jpg")
    with pytest.raises(DatasetError, match=r"a\.png: expected an image a\.\* in .*images, found none; complete"):
        TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")


def test_pngs_of_equal_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    """The folder is a part of the image id."""
    reader = write_two_channel_dataset(tmp_path, [[3, 9]], [[0, 0]])
    assert reader.images[0].image_id == "a"
    (tmp_path / "masks" / "deep").mkdir()
    Image.fromarray(np.array([[[9, 0, 0]]], dtype=np.uint8)).save(tmp_path / "masks" / "deep" / "a.png")
    save_image(tmp_path / "images" / "deep" / "a.png", (1, 1))
    reader = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
    assert [(i.image_id, i.file_name) for i in reader.images] == [("a", "a.jpg"), ("deep/a", "deep/a.png")]
    assert [reader.read_segmentation(i).segment_ids.tolist() for i in reader.images] == [[[3, 9]], [[9]]]


def test_all_issues_are_reported_and_valid_images_stay(tmp_path: Path) -> None:
    write_two_channel_dataset(tmp_path, [[3, 9]], [[0, 0]])
    for name in ("bare", "lone", "torn", "z"):
        shutil.copy(tmp_path / "masks" / "a.png", tmp_path / "masks" / f"{name}.png")
    for name in ("torn", "z", "unlabelled"):
        save_image(tmp_path / "images" / f"{name}.jpg", (1, 2))
    (tmp_path / "masks" / "torn.png").write_bytes(b"torn")
    issues: list[tuple[str, str]] = []
    reader = TwoChannelReader(
        tmp_path / "masks",
        tmp_path / "images",
        tmp_path / "c.json",
        on_issue=lambda code, error: issues.append((code, Path(error.where).name)),
    )
    assert issues == [("image-missing", "bare.png"), ("image-missing", "lone.png"), ("png-unreadable", "torn.png")]
    assert {code for code, _ in issues} <= {*RULES}
    assert [image.image_id for image in reader.images] == ["a", "z"]
    assert reader.skipped == (f"{tmp_path}/images: 1 images have no PNG: 'unlabelled'",)
    for image in reader.images:
        assert reader.read_segmentation(image).segment_ids.tolist() == [[3, 9]]
        assert reader.read_image(image).shape == (1, 2, 3)


def test_written_segmentations_are_read_back(tmp_path: Path) -> None:
    """Two cats, a crowd of cats and a cat without a pixel, sky and void: cats get the numbers 0, 1, 2 in order."""
    cats = Segment(8, 3, True, 2), Segment(2, 3, True, 1), Segment(7, 3, True, 0)
    sky_and_crowd = Segment(5, 9, False, 1), Segment(4, 3, True, 1, iscrowd=True)
    ground_truth = PanopticSegmentation(np.array([[8, 8, 2], [5, 4, 0]], np.int32), (*cats, *sky_and_crowd))
    image = DatasetImage("x", "deep/a.jpg", (2, 3))
    with TwoChannelWriter(tmp_path, CATEGORIES) as writer:
        losses = writer.add(image, ground_truth)
        with pytest.raises(DatasetError, match="was added before"):
            writer.add(image, ground_truth)
    assert losses == ["segment 7: it has no pixel", "1 crowds become objects"]
    assert np.asarray(Image.open(tmp_path / "masks" / "deep" / "a.png"))[..., :2].tolist() == [
        [[3, 0], [3, 0], [3, 1]],
        [[9, 0], [3, 2], [0, 0]],
    ]
    save_image(writer.image_path(image), (2, 3))
    reader = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "categories.json")
    assert reader.categories == CATEGORIES
    assert [(s.category_id, s.area_px) for s in reader.read_segmentation(reader.images[0]).segments] == [
        (3, 2),
        (9, 1),
        (3, 1),
        (3, 1),
    ]


def test_category_ids_above_255_and_more_than_256_segments_raise_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected category ids in 1\.\.255, got 256"):
        TwoChannelWriter(tmp_path, CategorySet([Category(256, "cat", True, (1, 2, 3))]))
    ids = np.arange(1, 258, dtype=np.int32)[None]
    many = PanopticSegmentation(ids, tuple(Segment(i, 3, True, 1) for i in range(1, 258)))
    with pytest.raises(DatasetError, match="at most 256 segments of a category, got 257"):
        TwoChannelWriter(tmp_path, CATEGORIES).add(DatasetImage("x", "a.jpg", (1, 257)), many)
    assert not (tmp_path / "masks").exists()


def test_images_of_any_suffix_are_read(tmp_path: Path) -> None:
    reader = write_two_channel_dataset(tmp_path, [[3, 9]], [[0, 0]])
    assert reader.skipped == ()
    (tmp_path / "images" / "a.jpg").unlink()
    for suffix in (".bmp", ".TIF", ".webp"):
        path = tmp_path / "images" / f"a{suffix}"
        save_image(path, (1, 2))
        reader = TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")
        assert reader.read_image(reader.images[0]).tolist() == [[[90] * 3] * 2]
        path.unlink()
    for suffix in (".bmp", ".png"):
        save_image(tmp_path / "images" / f"a{suffix}", (1, 2))
    with pytest.raises(DatasetError, match=r"a\.png: expected one file of a name, got a\.bmp and a\.png"):
        TwoChannelReader(tmp_path / "masks", tmp_path / "images", tmp_path / "c.json")


def test_overlaps_are_reported_as_losses(tmp_path: Path) -> None:
    ground_truth = PanopticSegmentation(np.array([[1, 1]], np.int32), (Segment(1, 3, True, 2),))
    masks = np.array([[1, 1]], bool), np.array([[0, 1]], bool)
    annotations = [{"segmentation": mask_to_rle(mask)} for mask in masks]
    losses = TwoChannelWriter(tmp_path, CATEGORIES).add(DatasetImage(1, "a.png", (1, 2)), ground_truth, annotations)
    assert losses == ["annotations: 1 pixels under other masks cannot be held"]
