"""Class weights from the pixels of a dataset: by hand, and against counting maps pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.class_weights import (
    PixelCounts,
    compute_log_inverse_weights,
    compute_median_frequency_weights,
    count_pixels,
    resolve_class_weights,
)
from segkit.data.datasets.custom import register_panoptic
from segkit.data.ground_truth import GroundTruth
from segkit.engine.setup import read_config
from segkit.utils.errors import ConfigError

# One image with 40 pixels of channel 0 and 10 of channel 1, and one with 50 of channel 0; channel 2 is absent.
COUNTS = PixelCounts([90, 10, 0], [100, 50, 0])


def test_median_frequency_by_hand() -> None:
    """Shares 90 / 100 and 10 / 50, median 0.55; the absent channel has the largest weight."""
    assert compute_median_frequency_weights(COUNTS) == pytest.approx([0.55 / 0.9, 0.55 / 0.2, 0.55 / 0.2])


def test_log_inverse_by_hand() -> None:
    expected = [1 / np.log(1.02 + 0.9), 1 / np.log(1.02 + 0.1), 1 / np.log(1.02)]
    assert compute_log_inverse_weights(COUNTS) == pytest.approx(expected)


def test_the_config_gets_the_weights_of_its_dataset(toy_folder: Path) -> None:
    register_panoptic("t_weights", toy_folder / "panoptic.json", toy_folder / "panoptic")
    dataset = load_dataset("t_weights")
    ground_truth = GroundTruth(dataset, "one")
    maps = [ground_truth.read_semantic_map(record) for record in dataset.records]
    channels = len(ground_truth.space.names)
    pixels = [sum(int((m == c).sum()) for m in maps) for c in range(channels)]
    of_images = [sum(int((m != 255).sum()) for m in maps if (m == c).any()) for c in range(channels)]
    assert count_pixels([dataset], "one") == PixelCounts(pixels, of_images)

    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.THING_CHANNELS", "one"])
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = [{"name": "cross_entropy", "class_weights": "log_inverse", "weight": 2.0}, "dice"]
    resolve_class_weights(cfg, [dataset])
    entry, dice = cfg.MODEL.SEM_SEG_HEAD.LOSSES
    assert (entry["name"], entry["weight"], dice) == ("cross_entropy", 2.0, "dice")
    expected = compute_log_inverse_weights(PixelCounts(pixels, of_images))
    assert entry["class_weights"] == pytest.approx(expected, abs=1e-4)


def test_without_a_training_no_weights_are_computed() -> None:
    text = "[{'name': 'focal', 'class_weights': 'log_inverse'}, 'dice']"
    cfg = read_config(opts=["MODEL.SEM_SEG_HEAD.LOSSES", text], train=False)
    assert cfg.MODEL.SEM_SEG_HEAD.LOSSES == [{"name": "focal", "class_weights": None}, "dice"]


def test_an_unknown_weighting_is_named(toy_folder: Path) -> None:
    register_panoptic("t_unknown_weights", toy_folder / "panoptic.json", toy_folder / "panoptic")
    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", "SemanticSegmentor"])
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = [{"name": "focal", "class_weights": "median_frequncy"}]
    with pytest.raises(
        ConfigError, match=r"LOSSES: class_weights 'median_frequncy' are unknown; did you mean 'median_freq"
    ):
        resolve_class_weights(cfg, [load_dataset("t_unknown_weights")])
