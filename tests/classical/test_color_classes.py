"""Classes of regions and pixels by the colours of each class in labelled images."""

from __future__ import annotations

import numpy as np
import pytest

from segkit.classical import ColorClasses
from segkit.classical.color_classes import COLORS, count_colors, quantize_colors

RED, GREEN, BLUE = (250, 5, 5), (5, 250, 5), (5, 5, 250)


def image(*rows: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def test_colours_are_numbered_by_8_levels_of_each_channel() -> None:
    # red: level 7, 0, 0; green 0, 7, 0; blue 0, 0, 7; (31, 32, 64): 0, 1, 2
    assert quantize_colors(image([RED, GREEN, BLUE, (31, 32, 64)])).tolist() == [[448, 56, 7, 10]]
    assert quantize_colors(np.array([[[33]]], dtype=np.uint8)).tolist() == [[64 + 8 + 1]]


def test_pixels_of_each_class_are_counted_and_others_left_out() -> None:
    counts = count_colors(image([RED, RED, GREEN, BLUE]), np.array([[0, 1, 1, 255]]), 2)
    assert counts.shape == (2, COLORS)
    assert counts[:, [448, 56, 7]].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert counts.sum() == 3


def trained() -> ColorClasses:
    """Class 0 is red, 1 is half red and half green, 2 is blue; class 3 was never seen."""
    counts = np.zeros((4, COLORS))
    counts[0, 448], counts[1, [448, 56]], counts[2, 7] = 100, (10, 10), 1
    return ColorClasses(counts)


def test_a_region_has_the_class_of_most_votes_and_their_mean_as_its_score() -> None:
    # red votes 1 : 0.5 for classes 0 and 1, green for 1 alone. Region 1 is red: 2/3. Region 2 has one pixel of each:
    # class 1 gets (1/3 + 1) / 2 = 2/3, class 0 gets 1/3.
    label_map = np.array([[1, 1, 2, 2, 0]], dtype=np.int32)
    classes, scores = trained().classify_regions(label_map, image([RED, RED, RED, GREEN, BLUE]), (0, 1))
    assert classes.tolist() == [0, 1]
    assert scores == pytest.approx([2 / 3, 2 / 3], abs=1e-4)


def test_only_the_classes_in_question_are_voted_for() -> None:
    label_map = np.array([[1, 2]], dtype=np.int32)
    classes, scores = trained().classify_regions(label_map, image([RED, GREEN]), (2, 1))
    assert classes.tolist() == [1, 1]
    assert scores == pytest.approx([1 / 3, 1], abs=1e-4)  # 2/3 of the first vote are for class 0


def test_a_colour_that_was_never_seen_votes_for_all_alike() -> None:
    classes, scores = trained().classify_regions(np.array([[1]], dtype=np.int32), image([(130, 130, 130)]), (1, 2))
    assert (classes.tolist(), scores.tolist()) == ([1], [0.25])


def test_pixels_and_images_without_regions() -> None:
    assert trained().classify_pixels(image([RED, GREEN, BLUE]), (1, 2)).tolist() == [[1, 1, 2]]
    classes, scores = trained().classify_regions(np.zeros((1, 1), np.int32), image([RED]), (0, 1))
    assert (classes.shape, scores.shape) == ((0,), (0,))
