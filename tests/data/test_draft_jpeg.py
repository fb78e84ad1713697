"""JPEG files decoded at a reduced scale: near the exact pixels, and with the same ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from segkit.config import load_config
from segkit.data.augmentations.build import SafeCrop, SafeResize
from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import load_reader_dataset
from segkit.data.mapper import SegkitMapper
from segkit.utils.errors import DatasetError

HEIGHT, WIDTH = 480, 640


def draw_photo(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of every scale, as photos have, with sharp edges over it."""
    photo = np.zeros((HEIGHT, WIDTH, 3))
    for octave in range(2, 8):
        noise = rng.normal(size=(2**octave, 2**octave, 3)) * 0.6**octave
        photo += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    photo = 255 * (photo - photo.min()) / np.ptp(photo)
    for _ in range(8):
        centre, axes = rng.integers((WIDTH, HEIGHT)).tolist(), rng.integers(20, 120, 2).tolist()
        cv2.ellipse(photo, centre, axes, 30, 0, 360, rng.integers(0, 255, 3).tolist(), cv2.FILLED)
    return photo.clip(0, 255).astype(np.uint8)


def write_dataset(folder: Path, orientation: int = 1) -> Dataset:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for number in range(3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(draw_photo(rng)).save(folder / f"images/{number}.jpg", quality=92, exif=exif)
        labels = rng.integers(0, 4, (6, 8), dtype=np.uint8).repeat(80, axis=0).repeat(80, axis=1)
        labels = labels if orientation == 1 else labels.T
        Image.fromarray(labels).save(folder / f"labels/{number}.png")
    return load_reader_dataset("draft", "instance-maps", {"root": str(folder)})


def map_all(dataset: Dataset, augmentations: list[Any], drafts: bool) -> list[dict[str, Any]]:
    space = dataset.categories.build_semantic_space("one")
    mapper = SegkitMapper(dataset.categories, space, augmentations, drafts=drafts)
    np.random.seed(3)  # noqa: NPY002
    return [mapper(record) or {} for record in dataset.records]


@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_differ_by_less_than_one_and_ground_truth_by_nothing(tmp_path: Path, orientation: int) -> None:
    dataset = write_dataset(tmp_path, orientation)
    augmentations = [SafeResize((100, 120, 150), 220, "choice"), T.RandomFlip()]
    for draft, exact in zip(map_all(dataset, augmentations, True), map_all(dataset, augmentations, False), strict=True):
        assert draft["image"].shape == exact["image"].shape
        difference = (draft["image"].int() - exact["image"].int()).abs().float().mean().item()
        assert 0 < difference < 1
        assert torch.equal(draft["sem_seg"], exact["sem_seg"])
        assert torch.equal(draft["instances"].gt_masks.tensor, exact["instances"].gt_masks.tensor)
        assert torch.equal(draft["instances"].gt_boxes.tensor, exact["instances"].gt_boxes.tensor)


@pytest.mark.parametrize(
    "augmentations",
    [
        [SafeResize((300,), 400, "choice")],  # more than half the size
        [SafeResize((960,), 1333, "choice")],
        [SafeResize(0, 1000, "choice"), T.RandomFlip()],  # no resize
        [SafeCrop("relative", (0.5, 0.5)), SafeResize((100,), 200, "choice")],
        [],
    ],
)
def test_without_a_reduction_nothing_differs(tmp_path: Path, augmentations: list[Any]) -> None:
    dataset = write_dataset(tmp_path)
    for draft, exact in zip(map_all(dataset, augmentations, True), map_all(dataset, augmentations, False), strict=True):
        assert torch.equal(draft["image"], exact["image"])
        assert torch.equal(draft["sem_seg"], exact["sem_seg"])


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(tmp_path / "images/1.jpg")
    with pytest.raises(DatasetError, match=r"1\.jpg: expected 480 x 640 pixels .* got 240 x 320"):
        map_all(dataset, [SafeResize((100,), 200, "choice")], True)


def test_the_key_is_off_and_for_training_alone(tmp_path: Path) -> None:
    dataset, cfg = write_dataset(tmp_path), load_config("", ["MODEL.META_ARCHITECTURE", "PanopticRCNN"])
    assert not SegkitMapper.from_config(cfg, dataset, True).drafts
    cfg.INPUT.DRAFT_JPEG = True
    assert SegkitMapper.from_config(cfg, dataset, True).drafts
    assert not SegkitMapper.from_config(cfg, dataset, False).drafts
    cfg.INPUT.LSJ.ENABLED = True
    assert not SegkitMapper.from_config(cfg, dataset, True).drafts
