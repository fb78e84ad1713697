from __future__ import annotations

from pathlib import Path

import numpy as np

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.report.palette import choose_colors
from segkit.report.views import (
    MAX_TRIES,
    build_legend,
    draw_legend,
    draw_view,
    draw_view_grid,
    select_images,
)
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CAT, SKY, GRASS, BACKGROUND = 1, 2, 3, 4
CATEGORIES = CategorySet(
    [
        Category(CAT, "cat", True, (220, 20, 60)),
        Category(SKY, "sky-other-merged", False, (70, 130, 180)),
        Category(GRASS, "grass", False, (30, 160, 30)),
        Category(BACKGROUND, "background", False, (0, 0, 0)),
    ]
)


def segmentation(ids: object, *category_ids: int, crowds: tuple[int, ...] = ()) -> PanopticSegmentation:
    ids = np.asarray(ids, dtype=np.int32)
    return PanopticSegmentation(
        ids,
        tuple(
            Segment(n, c, c == CAT, int((ids == n).sum()), iscrowd=n in crowds) for n, c in enumerate(category_ids, 1)
        ),
    )


class Slices(DatasetReader):
    """Slices 0, 1, ... of 2 x 2 pixels; those whose numbers are in `labelled` have a cat, the others background."""

    format = "slices"

    def __init__(self, count: int, labelled: set[int]) -> None:
        self.root = self.image_root = Path()
        self.categories, self.labelled = CATEGORIES, labelled
        self.images = tuple(DatasetImage(i, f"{i}.png", (2, 2)) for i in range(count))
        self.reads = 0

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        self.reads += 1
        return segmentation(np.ones((2, 2)), CAT if image.image_id in self.labelled else BACKGROUND)


def choose(count: int, labelled: set[int], wanted: int) -> tuple[list[int], int]:
    selection = select_images(Slices(count, labelled), wanted)
    return [image.image_id for image, _ in selection.images], selection.left_out


def test_images_are_spread_over_the_dataset():
    assert choose(9, {*range(9)}, 3) == ([1, 4, 7], 0)
    assert choose(2, {0, 1}, 5) == ([0, 1], 0)
    assert choose(0, set(), 5) == ([], 0)


def test_images_without_labels_are_left_out_and_counted():
    # parts 0..4 and 5..9: from 2 on, 2 3 4 1 0; from 7 on, 7
    assert choose(10, {1, 7}, 2) == ([1, 7], 3)
    assert choose(10, {7}, 2) == ([7], 5)


def test_images_are_shown_if_none_has_a_label():
    assert choose(10, set(), 2) == ([0, 1], 0)


def test_a_large_dataset_without_labels_is_not_read_whole():
    reader = Slices(10_000, set())
    select_images(reader, 2)
    assert reader.reads == 2 * MAX_TRIES + 2


def test_small_images_are_enlarged_by_whole_factors_and_large_ones_reduced():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    ids = np.array([[1, 0], [0, 0]])
    shown = segmentation(ids, CAT)
    view = draw_view("a", image, shown, CATEGORIES, choose_colors([shown], CATEGORIES), side_px=7, alpha=1.0)
    assert (view.image == image.repeat(3, axis=0).repeat(3, axis=1)).all()
    changed = (view.overlay != view.image).any(axis=2)
    assert (changed == (ids == 1).repeat(3, axis=0).repeat(3, axis=1)).all()
    large = draw_view(
        "a",
        np.zeros((40, 20, 3), np.uint8),
        segmentation(np.ones((40, 20)), SKY),
        CATEGORIES,
        {SKY: (9, 9, 9)},
        side_px=10,
        alpha=1.0,
    )
    assert large.image.shape == large.overlay.shape == (10, 5, 3)
    assert (large.overlay == 9).all()


def test_the_legend_counts_instances_and_pixels():
    ids = np.zeros((10, 30), dtype=int)
    ids[:, 10:20], ids[0, :2], ids[5, 5] = 1, 2, 3
    ids[:5, 20:] = 4
    shown = segmentation(ids, SKY, CAT, CAT, GRASS)
    more = segmentation(np.ones((1, 1)), BACKGROUND)
    colors = choose_colors([shown, more], CATEGORIES)
    legend = build_legend([shown, more], CATEGORIES, colors)
    # sky 100 of 301 pixels, grass 50
    assert [(entry.name, entry.count) for entry in legend] == [("cat", "2"), ("sky", "33 %"), ("grass", "17 %")]
    assert [entry.color for entry in legend] == [colors[CAT], colors[SKY], colors[GRASS]]


def test_crowds_and_small_shares_in_the_legend():
    ids = np.ones((20, 20), dtype=int)
    ids[0, :3] = 2
    crowd = segmentation(ids, CAT, SKY, crowds=(1,))
    legend = build_legend([crowd], CATEGORIES, choose_colors([crowd], CATEGORIES))
    assert [(entry.name, entry.count) for entry in legend] == [("cat", "0 + crowds"), ("sky", "< 1 %")]


def test_a_legend_wraps_and_shows_its_colours():
    shown = segmentation([[1, 2, 3]], CAT, SKY, GRASS)
    legend = build_legend([shown], CATEGORIES, choose_colors([shown], CATEGORIES))
    wide, narrow = draw_legend(legend, 600, 12), draw_legend(legend, 100, 12)
    assert wide.shape[1:] == (600, 3)
    assert narrow.shape[0] > 2 * wide.shape[0]
    for strip in (wide, narrow):
        pixels = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
        assert {entry.color for entry in legend} <= pixels
    assert draw_legend([], 50, 12).shape == (0, 50, 3)


def test_a_grid_of_views_ends_with_the_legend():
    shown = segmentation(np.ones((2, 2)), CAT)
    colors = choose_colors([shown], CATEGORIES)
    views = [draw_view("a", np.zeros((2, 2, 3), np.uint8), shown, CATEGORIES, colors, side_px=560)]
    grid, bare = draw_view_grid(views, views[0].legend), draw_view_grid(views, ())
    assert (grid[: len(bare)] == bare).all()
    assert (grid[len(bare) :] == (220, 20, 60)).all(axis=2).any()
