from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage
from segkit.formats.yolo import YoloReader, YoloWriter
from segkit.formats.yolo.outlines import build_outline, join_pieces
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle, segmentation_to_rle
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers import writer_samples


def write_and_open(
    root: Path, segmentation: PanopticSegmentation, categories: CategorySet, annotations: list | None = None
) -> tuple[list[str], YoloReader]:
    image = DatasetImage(3, "sub/x.jpg", segmentation.segment_ids.shape)
    with YoloWriter(root, categories) as writer:
        losses = writer.add(image, segmentation, annotations)
        path = writer.image_path(image)
    path.parent.mkdir(parents=True)
    Image.new("L", image.size_hw[::-1]).save(path)
    return losses, YoloReader(root)


@settings(deadline=None)
@given(mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_any_mask_is_read_back(tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
    """Pieces and holes too: all is one polygon, which fills every second of its nested outlines."""
    mask[0, 0] = True
    categories = CategorySet([Category(7, "cat", True, (1, 2, 3))])
    segmentation = PanopticSegmentation(mask.astype(np.int32), (Segment(1, 7, True, int(mask.sum())),))
    losses, reader = write_and_open(tmp_path_factory.mktemp("yolo"), segmentation, categories)
    assert losses == []
    (image,) = reader.images
    assert image.image_id == "sub/x"
    assert [a["segmentation"] for a in reader.read_annotations(image)] == [mask_to_rle(mask)]


def test_polygons_stay_polygons() -> None:
    """A polygon of one piece is written as it is, pieces with lines from the nearest corner to the nearest one."""
    first, second = [0.5, 0.5, 3.0, 0.5, 3.0, 3.0], [6.0, 3.0, 8.5, 3.0, 8.5, 6.5]
    outline = build_outline([first], (8, 10))
    assert outline is not None
    assert outline.ravel().tolist() == first
    joined = build_outline([first, second], (8, 10))
    assert joined is not None
    assert joined.tolist() == [
        *([0.5, 0.5], [3, 0.5], [3, 3]),
        *([6, 3], [8.5, 3], [8.5, 6.5], [6, 3]),
        *([3, 3], [0.5, 0.5]),
    ]
    assert segmentation_to_rle([joined.ravel().tolist()], (8, 10)) == segmentation_to_rle([first, second], (8, 10))


def test_polygons_that_overlap_become_the_edge_of_their_pixels() -> None:
    square, shifted = [0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]
    outline = build_outline([square, shifted], (8, 8))
    assert outline is not None
    assert segmentation_to_rle([outline.ravel().tolist()], (8, 8)) == segmentation_to_rle([square, shifted], (8, 8))
    assert len(outline) == 8


def test_only_some_corners_of_long_outlines_are_compared() -> None:
    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    circle = 400 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + 500
    joined = join_pieces([circle, circle + np.array([850, 0])])
    step = np.linalg.norm(np.diff(joined, axis=0), axis=1).max()
    assert step == pytest.approx(50, abs=1)


def test_the_files(tmp_path: Path) -> None:
    losses, _ = write_and_open(tmp_path, writer_samples.GROUND_TRUTH, writer_samples.CATEGORIES)
    assert losses == [
        "segment 7: it has no pixel",
        "1 crowds cannot be held",
        "1 segments of stuff cannot be held",
        "scores cannot be held: 1 segments have one",
    ]
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["data.yaml", "images/train/sub/x.jpg", "labels/train/sub/x.txt"]
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "car"},
    }
    lines = (tmp_path / "labels/train/sub/x.txt").read_text().splitlines()
    assert [sorted(line.split()) for line in lines] == [
        sorted(["0", "0", "0", "0", "0.5", "0.3333333333", "0.5", "0.3333333333", "0"]),
        sorted(["0", "0.3333333333", "0", "0.3333333333", "0.5", "0.6666666667", "0.5", "0.6666666667", "0"]),
    ]


def test_whole_masks_and_original_polygons_are_written(tmp_path: Path) -> None:
    """The second object hides all of the first; its polygon has corners between pixels."""
    categories = CategorySet([Category(1, "a", True, (0, 0, 0)), Category(5, "b", True, (0, 0, 0))])
    polygon = [0.25, 0.0, 3.75, 0.1, 3.9, 3.9, 0.1, 3.8]
    rle = segmentation_to_rle([polygon], (4, 4))
    segmentation = PanopticSegmentation(np.full((4, 4), 2, np.int32), (Segment(2, 1, True, 16),))
    annotations = [
        {"category_id": 5, "segmentation": rle, ORIGINAL_SEGMENTATION: [polygon], "iscrowd": 0, "tag": 1},
        {"category_id": 1, "segmentation": mask_to_rle(np.ones((4, 4), bool))},
        {"id": 9, "category_id": 1, "segmentation": mask_to_rle(np.zeros((4, 4), bool))},
    ]
    losses, reader = write_and_open(tmp_path, segmentation, categories, annotations)
    assert losses == ["annotation 9: it has no pixel", "annotations: the keys 'tag' cannot be held"]
    stored = reader.read_stored_annotations(reader.images[0])
    assert (stored[0]["category_id"], stored[0]["segmentation"]) == (1, [polygon])
    assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [16, 16]


def test_images_are_divided(tmp_path: Path) -> None:
    """Half of them go to val; the reader finds them in both splits."""
    categories = CategorySet([Category(1, "a", True, (0, 0, 0))])
    segmentation = PanopticSegmentation(np.ones((2, 2), np.int32), (Segment(1, 1, True, 4),))
    with YoloWriter(tmp_path, categories, val_share=0.5) as writer:
        for name in "abcdefgh":
            image = DatasetImage(name, f"{name}.png", (2, 2))
            writer.add(image, segmentation)
            writer.image_path(image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 2)).save(writer.image_path(image))
    parts = [[i.image_id for i in YoloReader(tmp_path, split).images] for split in ("train", "val")]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == [*"abcdefgh"]


def test_options_and_names_that_are_refused(tmp_path: Path) -> None:
    car = writer_samples.CATEGORIES
    with pytest.raises(ValueError, match="split must be one of"):
        YoloWriter(tmp_path, car, split="valid")
    with pytest.raises(ConfigError, match="expected val_share to be a number"):
        YoloWriter(tmp_path, car, val_share=2)
    with pytest.raises(DatasetError, match="expected categories with things"):
        YoloWriter(tmp_path, CategorySet(car.stuff))
    writer = YoloWriter(tmp_path, car)
    writer.add(DatasetImage("x", "x.png", (2, 3)), writer_samples.GROUND_TRUTH)
    with pytest.raises(DatasetError, match="was added before"):
        writer.add(DatasetImage("x", "x.jpg", (2, 3)), writer_samples.GROUND_TRUTH)
