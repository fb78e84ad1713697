from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from segkit.report import palette
from segkit.structures import Category, CategorySet

PERSON, SKY, SEA, BACKGROUND = 1, 5, 6, 9
CATEGORIES = CategorySet(
    [
        Category(PERSON, "person", True, (220, 20, 60)),
        Category(SKY, "sky-other-merged", False, (70, 130, 180)),
        Category(SEA, "sea", False, (74, 128, 182)),
        Category(BACKGROUND, "Background", False, (0, 0, 0)),
    ]
)


def measure_smallest_distance(colors: list[palette.Color]) -> float:
    lab = palette.to_lab(colors)
    return min(float(palette.measure_distances(lab[[i]], lab[j])[0]) for i, j in combinations(range(len(lab)), 2))


def test_lab_of_known_colours():
    # white is (100, 0, 0); red is (53.24, 80.09, 67.20), from the definition of sRGB
    lab = palette.to_lab([(255, 255, 255), (255, 0, 0)])
    assert lab == pytest.approx(np.array([[100, 0, 0], [53.24, 80.09, 67.20]]), abs=0.1)


def test_lightness_counts_half():
    lab = np.array([[50, 0, 0], [70, 0, 0], [50, 3, 4]], dtype=np.float32)
    assert palette.measure_distances(lab, lab[0]).tolist() == [0, 10, 5]


def test_classes_keep_their_colours_unless_another_has_nearly_the_same():
    colors = palette.list_drawn_colors(CATEGORIES)
    assert colors[PERSON] == (220, 20, 60)
    assert colors[SKY] == (70, 130, 180)
    assert measure_smallest_distance([colors[SKY], colors[SEA]]) >= palette.MAX_DISTANCE
    assert BACKGROUND not in colors
    assert CATEGORIES[SEA].color == (74, 128, 182)  # what files get


def test_classes_that_are_not_drawn_take_no_colour():
    assert palette.list_drawn_colors(CATEGORIES, {SEA}) == {SEA: (74, 128, 182)}
    assert palette.list_drawn_colors(CATEGORIES, set()) == {}


@pytest.mark.parametrize(("count", "least"), [(2, 30), (13, 30), (53, 15)])
def test_stuff_of_one_colour_is_told_apart(count, least):
    categories = CategorySet(Category(i, str(i), False, (100, 100, 100)) for i in range(count))
    colors = palette.list_drawn_colors(categories)
    assert measure_smallest_distance(list(colors.values())) >= least
    assert palette.list_drawn_colors(categories) == colors


def test_more_classes_than_colours_are_coloured():
    categories = CategorySet(Category(i, str(i), i % 2 == 0, (i % 7, 0, 0)) for i in range(400))
    assert len(palette.list_drawn_colors(categories)) == 400


def test_names_lose_cocos_suffixes():
    names = ["sky-other-merged", "door-stuff", "wall-wood", "-other", "tree", "tree-merged", "net-stuff", "net-other"]
    categories = CategorySet(Category(i, name, False, (0, 0, 0)) for i, name in enumerate(names))
    shown = ["sky", "door", "wall-wood", "-other", "tree", "tree-merged", "net-stuff", "net-other"]
    assert [*palette.list_shown_names(categories).values()] == shown


def test_only_stuff_is_background():
    cases = {
        ("background", False): True,
        ("Unlabelled", False): True,
        ("background", True): False,
        ("sky", False): False,
    }
    for (name, isthing), expected in cases.items():
        assert palette.is_background(Category(1, name, isthing, (0, 0, 0))) == expected


def list_windows(count: int, step: int) -> list[tuple[slice, slice]]:
    return [(slice(0, 10), slice(i * step, i * step + 10)) for i in range(count)]


@pytest.mark.parametrize("all_hues", [False, True])
def test_neighbours_of_one_class_differ_more_than_others(all_hues):
    base = (120, 160, 90)
    neighbours = palette.choose_instance_colors(base, list_windows(30, step=10), all_hues)
    distant = palette.choose_instance_colors(base, list_windows(30, step=20), all_hues)
    assert neighbours[0] == distant[0] == base
    assert len(set(neighbours)) == len(set(distant)) == 30

    def measure_steps(colors: list[palette.Color]) -> list[float]:
        return [measure_smallest_distance(colors[i : i + 2]) for i in range(len(colors) - 1)]

    assert min(measure_steps(neighbours)) > 10
    assert np.mean(measure_steps(neighbours)) > np.mean(measure_steps(distant))


def test_no_instance_has_no_colour():
    assert palette.choose_instance_colors((1, 2, 3), []) == []
