"""Images of any number of channels: each is resized, jittered and pasted like a grey image of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detectron2.data import transforms as T

from segkit.config import load_config
from segkit.data.augmentations.build import build_augmentations
from segkit.data.augmentations.jitter import ColorJitter, LargeScaleJitter
from segkit.data.augmentations.resize import SafeResize
from segkit.runtime.images import ALL_CHANNELS
from segkit.utils.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (23, 31, 6), dtype=np.uint8)


def seeded(augmentation: T.Augmentation, image: np.ndarray) -> T.Transform:
    np.random.seed(3)  # noqa: NPY002
    return augmentation.get_transform(image)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6])
@pytest.mark.parametrize(
    "augmentation",
    [
        SafeResize(17, 100),
        SafeResize(40, 100),
        LargeScaleJitter(32, 0.5, 2.0),
        T.RandomFlip(1.0),
        T.RandomCrop("absolute", (9, 8)),
        ColorJitter(ALL_CHANNELS, 0.3, 0.3, 0.0),
    ],
    ids=["smaller", "larger", "scale", "flip", "crop", "color"],
)
def test_channels_are_transformed_one_by_one(augmentation: T.Augmentation, channels: int) -> None:
    image = np.ascontiguousarray(IMAGE[..., :channels])
    transform = seeded(augmentation, image)
    together = transform.apply_image(image.copy())
    for channel in range(channels):
        grey = np.ascontiguousarray(image[..., channel : channel + 1])
        transform = seeded(augmentation, grey)
        assert np.array_equal(together[..., channel : channel + 1], transform.apply_image(grey))
    assert together.dtype == np.uint8


def test_jitter_scales_pixels_and_their_distance_from_the_mean_of_the_channel() -> None:
    """Pixels of 60 and 100, mean 80, brightness 0.5, contrast 2: 40 +- 2 x 10; 250 and 250: 125."""
    image = np.array([[[60, 250], [100, 250]]], dtype=np.uint8)
    jitter = ColorJitter(ALL_CHANNELS, 0.5, 1.0, 0.0)
    jitter._rand_range = lambda low, high, size: np.array([-1.0, 1.0, 0.0])  # type: ignore[method-assign]
    assert jitter.get_transform(image).apply_image(image).tolist() == [[[20, 125], [60, 125]]]


def test_saturation_needs_colours() -> None:
    options: list[Any] = ["INPUT.FORMAT", ALL_CHANNELS, "INPUT.COLOR_JITTER.SATURATION", "0.1"]
    with pytest.raises(ConfigError, match=r"COLOR_JITTER\.SATURATION: expected 0, as CHANNELS of .*, got 0\.1"):
        build_augmentations(load_config(opts=options), is_train=True)
