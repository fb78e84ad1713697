"""Properties that every classical method has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import pytest

import segkit.classical
from segkit.classical import CLASSICAL_METHODS, ClassicalMethod, build_classical
from segkit.utils.errors import ConfigError

DARK, BRIGHT = (30, 40, 35), (200, 180, 190)


def build(name: str, **options: Any) -> ClassicalMethod:
    if CLASSICAL_METHODS[name].needs_scikit_image:
        pytest.importorskip("skimage")
    return build_classical(name, **options)


def two_discs(objects: tuple[int, int, int] = BRIGHT, around: tuple[int, int, int] = DARK) -> np.ndarray:
    """(40, 60, 3), discs of radius 9 at x = 15 and x = 42."""
    image = np.full((40, 60, 3), around, dtype=np.uint8)
    for x in (15, 42):
        cv2.circle(image, (x, 20), 9, objects, -1)
    return image


every_method = pytest.mark.parametrize("name", sorted(CLASSICAL_METHODS))


@every_method
def test_two_discs_are_two_regions_and_their_surroundings_another_one(name: str) -> None:
    image = two_discs()
    before = image.copy()
    labels = build(name, blur_px=0.0)(image)
    assert (image == before).all()
    assert (labels.shape, labels.dtype) == ((40, 60), np.int32)
    left, right, around = labels[20, 15], labels[20, 42], labels[3, 30]
    assert len({left, right, around}) == 3
    assert (around == 0) == (not CLASSICAL_METHODS[name].is_partition)
    assert min(left, right) > 0
    for label, x in ((left, 15), (right, 42)):
        disc = np.zeros((40, 60), dtype=np.uint8)
        cv2.circle(disc, (x, 20), 9, 1, -1)
        shared, either = ((labels == label) & (disc > 0)).sum(), ((labels == label) | (disc > 0)).sum()
        assert shared / either > 0.75  # a line of one pixel around the disc is a fifth of it


@every_method
def test_labels_are_consecutive_connected_and_as_large_as_asked(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    labels = build(name, min_area_px=12, blur_px=1.5)(noise)
    areas_px = np.bincount(labels.ravel())
    assert (areas_px[1:] >= 12).all()
    for label in range(1, len(areas_px)):
        pieces, _ = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=8)
        assert pieces == 2  # the background and one region


@every_method
def test_grey_images_have_the_regions_of_rgb_images_of_equal_channels(name: str) -> None:
    gray = two_discs()[:, :, :1]
    method = build(name)
    assert (method(gray) == method(np.repeat(gray, 3, axis=2))).all()


@every_method
@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 4, 3), (4, 0, 1), (1, 1, 3), (2, 3, 1)])
def test_tiny_and_empty_images(name: str, shape: tuple[int, ...]) -> None:
    labels = build(name, min_area_px=1)(np.full(shape, 9, dtype=np.uint8))
    assert (labels.shape, labels.dtype) == (shape[:2], np.int32)
    if not CLASSICAL_METHODS[name].is_partition:
        assert not labels.any()  # a constant image has no object


@every_method
def test_other_channels_and_types_are_refused(name: str) -> None:
    method = build(name)
    with pytest.raises(ConfigError, match="need images of 1 or 3 channels, got 4; choose the channels"):
        method(np.zeros((5, 5, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"image must be \(H, W, C\) uint8, got \(5, 5, 3\) float64"):
        method(np.zeros((5, 5, 3)))


@every_method
def test_the_values_of_the_grid_are_options(name: str) -> None:
    grid = CLASSICAL_METHODS[name].grid
    assert grid
    for option, values in grid.items():
        assert len(set(values)) == len(values)
        for value in values:
            assert getattr(build(name, **{option: value}), option) == value


@every_method
def test_invalid_options_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"classical method .* has no option \['min_area'\]; did you mean"):
        build(name, min_area=3)
    with pytest.raises(ConfigError, match="min_area_px must be a number from 0, got -1"):
        build(name, min_area_px=-1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("watershed", {"objects": "white"}, r"Watershed: objects must be one of \['auto', 'bright', 'dark'\], got 'wh"),
        ("watershed", {"depth_px": -1.0}, "depth_px must be a number from 0, got -1.0"),
        ("adaptive", {"window_px": 4}, "AdaptiveThreshold: window_px must be odd and at least 3, got 4"),
        ("multi_otsu", {"classes": 1}, "classes must be a number from 2, got 1"),
        ("canny", {"strength": 0}, "strength must be above 0"),
        ("kmeans", {"clusters": 0}, "clusters must be a number from 1, got 0"),
        ("flood_fill", {"step_px": 2.0}, "option 'step_px' must be of type int, got 2.0"),
        ("otso", {}, "unknown classical method 'otso'; did you mean 'otsu'"),
        ("magic", {}, r"unknown classical method 'magic'; choose one of \['adaptive', 'canny', "),
    ],
)
def test_messages_name_what_was_expected(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_classical(name, **options)


def test_a_missing_scikit_image_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segkit.classical, "find_spec", lambda name: None if name == "skimage" else find_spec(name))
    remedy = r"'slic' needs the extra 'classical' \(scikit-image is not installed\); pip install 'segkit\[classical\]'"
    with pytest.raises(ConfigError, match=remedy):
        build_classical("slic")
    assert build_classical("watershed")(two_discs()).max() == 2
