"""Thresholds: Otsu's and several of them, by the mean and by Sauvola around each pixel."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import build_classical
from segkit.classical.brightness import find_bright, make_objects_bright
from segkit.classical.thresholding import find_otsu_thresholds

GRAYS = arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)))
EVERY_PIXEL = {"blur_px": 0.0, "min_area_px": 1}


def gray(values: object) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def segment(values: np.ndarray, name: str, **options: object) -> list[list[int]]:
    labels: list[list[int]] = build_classical(name, **{**EVERY_PIXEL, **options})(values[:, :, None]).tolist()
    return labels


def test_bright_components_are_regions() -> None:
    image = gray([[200, 0, 0, 210], [0, 0, 0, 200], [0, 0, 0, 0]])
    assert segment(image, "otsu") == [[1, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert segment(image, "otsu", min_area_px=2) == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_dark_objects_are_found_by_the_border_of_the_image() -> None:
    image = gray([[90, 90, 90, 90], [90, 10, 10, 90], [90, 90, 90, 90]])
    objects = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert segment(image, "otsu") == segment(image, "otsu", objects="dark") == segment(255 - image, "otsu") == objects
    assert segment(image, "otsu", objects="bright") == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]


def test_gamma_brings_dim_objects_above_the_threshold() -> None:
    # 64 pixels of 10, 16 of 90, 16 of 200. The variance between {10} and {90, 200} is 64 * 32 / 96 * 135^2 = 389,000,
    # between {10, 90} and {200} 80 * 16 / 96 * 174^2 = 404,000. With gamma they are 50, 151, 226: 409,000 and 323,000.
    image = np.full((8, 12), 10, dtype=np.uint8)
    image[2:6, 1:5], image[2:6, 7:11] = 90, 200
    assert np.max(segment(image, "otsu")) == 1
    assert np.max(segment(image, "otsu", gamma=0.5)) == 2


def test_brightness_is_inverted_and_raised_to_gamma() -> None:
    image = np.repeat(gray([[0, 64, 255]])[:, :, None], 3, axis=2)
    assert make_objects_bright(image, "bright").tolist() == [[0, 64, 255]]
    assert make_objects_bright(image, "dark").tolist() == [[255, 191, 0]]
    assert make_objects_bright(image, "bright", 0.5).tolist() == [[0, 128, 255]]  # sqrt(64 / 255) * 255 = 127.7
    assert make_objects_bright(image, "dark", 2.0).tolist() == [[255, 143, 0]]  # (191 / 255)^2 * 255 = 143.1


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_has_no_bright_pixel(value: int) -> None:
    assert not find_bright(np.full((3, 3), value, dtype=np.uint8)).any()


def test_the_local_mean_finds_spots_under_uneven_light() -> None:
    # On the ramp 0, 20, 40, ... spots of +18: no single threshold finds both, as 18 < 140.
    ramp = np.tile(np.arange(8) * 20, (5, 1))
    ramp[2, 1] += 18
    ramp[2, 6] += 18
    # The mean around a spot is raised by 18 / 9 = 2, so 16 stand out.
    spots = segment(ramp.astype(np.uint8), "adaptive", window_px=3, offset=15, objects="bright")
    assert np.argwhere(spots).tolist() == [[2, 1], [2, 6]]
    assert not np.any(segment(ramp.astype(np.uint8), "adaptive", window_px=3, offset=16.5, objects="bright"))


def test_sauvola_leaves_flat_places_alone_and_finds_contrast() -> None:
    pytest.importorskip("skimage")
    # The rows below are flat: their threshold is m (1 - k) away. A dark spot of 20 in 200 is below its threshold.
    image = np.full((20, 20), 200, dtype=np.uint8)
    image[4, 5] = 20
    image[15, 15] = 190
    spots = segment(image, "sauvola", window_px=5, k=0.2, objects="dark")
    assert np.argwhere(spots).tolist() == [[4, 5]]
    inverted = segment(255 - image, "sauvola", window_px=5, k=0.2, objects="bright")
    assert inverted == spots


def test_classes_of_grey_values_are_parted_into_components() -> None:
    image = gray([[250, 10, 120], [12, 118, 248]])
    assert segment(image, "multi_otsu", classes=3) == [[3, 1, 2], [1, 2, 4]]
    assert segment(image, "multi_otsu", classes=2) == [[2, 1, 1], [1, 1, 3]]


def test_a_symmetric_histogram_ties_to_the_lowest() -> None:
    # {0} | {1, 2} and {0, 1} | {2} are equally good: 1 * 1 + 2 * 0.25 from the mean either way
    assert find_otsu_thresholds(gray([[0, 1, 2]]), 2) == (0,)
    # five values in three classes: {0 1} {2 3} {4}, {0 1} {2} {3 4} and {0} {1 2} {3 4} leave the same variance
    assert find_otsu_thresholds(gray([[0, 1, 2, 3, 4]]), 3) == (0, 2)


def test_fewer_values_than_classes_are_a_class_each() -> None:
    assert find_otsu_thresholds(gray([[5, 9], [5, 9]]), 2) == (5,)
    assert find_otsu_thresholds(gray([[5, 9], [5, 9]]), 4) == (5, 9, 9)


@settings(deadline=None, max_examples=40)
@given(GRAYS, st.integers(2, 4))
def test_several_thresholds_are_optimal(image: np.ndarray, classes: int) -> None:
    values = np.unique(image).tolist()
    thresholds = find_otsu_thresholds(image, classes)
    assert len(thresholds) == classes - 1
    assert list(thresholds) == sorted(thresholds)
    assert set(thresholds) <= set(values)
    if len(values) > classes:
        best = max(_between(image, chosen) for chosen in combinations(values[:-1], classes - 1))
        assert _between(image, thresholds) >= best * (1 - 1e-9)


@settings(deadline=None, max_examples=40)
@given(GRAYS)
def test_two_classes_are_as_good_as_opencvs(image: np.ndarray) -> None:
    if len(np.unique(image)) > 1:
        threshold = int(image[~find_bright(image)].max())
        assert _between(image, find_otsu_thresholds(image, 2)) == pytest.approx(_between(image, (threshold,)))


def _between(image: np.ndarray, thresholds: tuple[int, ...]) -> float:
    """The variance between the classes, times the pixels."""
    classes = np.digitize(image, thresholds, right=True)
    parts = [image[classes == k].astype(float) for k in range(len(thresholds) + 1)]
    return sum(len(part) * (part.mean() - image.mean()) ** 2 for part in parts if len(part))
