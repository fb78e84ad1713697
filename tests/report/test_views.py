from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.report.palette import choose_colors
from segkit.report.views import (
    MAX_TRIES,
    View,
    build_legend,
    draw_legend,
    draw_view_grid,
    find_images,
    read_view,
    select_images,
)
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError

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
    left_out = [int(note.split(" images without a label")[0]) for note in selection.notes]
    return [image.image_id for image in selection.images], sum(left_out)


def test_images_are_spread_over_the_dataset():
    assert choose(9, {*range(9)}, 3) == ([1, 4, 7], 0)
    assert choose(2, {0, 1}, 5) == ([0, 1], 0)
    assert choose(0, set(), 5) == ([], 0)


def test_images_without_labels_are_left_out_and_counted():
    # parts 0..4 and 5..9: from 2 on, 2 3 4 1 0; from 7 on, 7
    assert choose(10, {1, 7}, 2) == ([1, 7], 3)
    assert choose(10, {7}, 2) == ([7], 5)


def test_images_are_shown_if_none_has_a_label():
    selection = select_images(Slices(10, set()), 2)
    assert [image.image_id for image in selection.images] == [0, 1]
    assert selection.notes == ("looked at 10 images, none has a label",)


def test_a_large_dataset_without_labels_is_not_read_whole():
    reader = Slices(10_000, set())
    select_images(reader, 2)
    assert reader.reads == 2 * MAX_TRIES


class OneImage(DatasetReader):
    """A dataset of one image in memory."""

    format = "one-image"

    def __init__(self, pixels: np.ndarray, shown: PanopticSegmentation, marks_void: bool = True) -> None:
        self.root = self.image_root = Path()
        self.categories, self.pixels, self.shown, self.marks_void = CATEGORIES, pixels, shown, marks_void
        self.images = (DatasetImage("a", "a.png", pixels.shape[:2]),)

    def read_image(self, image: DatasetImage) -> np.ndarray:
        return self.pixels

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        return self.shown

    def view(self, side_px: int) -> View:
        return read_view(self, self.images[0], choose_colors(self.shown.segments, CATEGORIES), side_px, alpha=1.0)


def test_small_images_are_enlarged_by_whole_factors():
    image, ids = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.array([[1, 0], [0, 0]])
    view = OneImage(image, segmentation(ids, CAT), marks_void=False).view(side_px=7)
    assert view.title == "a"
    assert (view.image == image.repeat(3, axis=0).repeat(3, axis=1)).all()
    changed = (view.overlay != view.image).any(axis=2)
    assert (changed == (ids == 1).repeat(3, axis=0).repeat(3, axis=1)).all()


def test_large_images_are_reduced():
    view = OneImage(np.zeros((40, 20, 3), np.uint8), segmentation(np.ones((40, 20)), SKY)).view(side_px=10)
    assert view.image.shape == view.overlay.shape == (10, 5, 3)
    assert (view.overlay == CATEGORIES[SKY].color).all()


@pytest.mark.parametrize("marks_void", [False, True])
def test_void_is_hatched_if_the_dataset_marks_it(marks_void):
    reader = OneImage(np.full((2, 2, 3), 100, np.uint8), segmentation(np.zeros((2, 2))), marks_void)
    assert (reader.view(side_px=2).overlay == 100).all() != marks_void


def test_the_legend_counts_instances_and_pixels():
    ids = np.zeros((10, 30), dtype=int)
    ids[:, 10:20], ids[0, :2], ids[5, 5] = 1, 2, 3
    ids[:5, 20:] = 4
    shown = segmentation(ids, SKY, CAT, CAT, GRASS)
    segments = [*shown.segments, *segmentation(np.ones((1, 1)), BACKGROUND).segments]
    colors = choose_colors(segments, CATEGORIES)
    legend = build_legend(segments, 301, CATEGORIES, colors)
    # sky 100 of 301 pixels, grass 50
    assert [(entry.name, entry.count) for entry in legend] == [("cat", "2"), ("sky", "33 %"), ("grass", "17 %")]
    assert [entry.color for entry in legend] == [colors[CAT], colors[SKY], colors[GRASS]]


def test_void_comes_last_in_the_legend_if_it_is_drawn():
    shown = segmentation([[1, 1, 1, 0]], SKY)
    colors = choose_colors(shown.segments, CATEGORIES)
    entries = [build_legend(shown.segments, 4, CATEGORIES, colors, marks_void) for marks_void in (True, False)]
    assert [(e.name, e.count) for e in entries[0]] == [("sky", "75 %"), ("void (hatched)", "25 %")]
    assert [e.name for e in entries[1]] == ["sky"]
    assert [e.name for e in build_legend(shown.segments, 3, CATEGORIES, colors, True)] == ["sky"]


def test_crowds_and_small_shares_in_the_legend():
    ids = np.ones((20, 20), dtype=int)
    ids[0, :3] = 2
    crowd = segmentation(ids, CAT, SKY, crowds=(1,))
    legend = build_legend(crowd.segments, 400, CATEGORIES, choose_colors(crowd.segments, CATEGORIES))
    assert [(entry.name, entry.count) for entry in legend] == [("cat", "0 + crowds"), ("sky", "< 1 %")]


def test_a_legend_wraps_and_shows_its_colours():
    shown = segmentation([[1, 2, 3]], CAT, SKY, GRASS)
    legend = build_legend(shown.segments, 3, CATEGORIES, choose_colors(shown.segments, CATEGORIES))
    wide, narrow = draw_legend(legend, 600, 12), draw_legend(legend, 100, 12)
    assert wide.shape[1:] == (600, 3)
    assert narrow.shape[0] > 2 * wide.shape[0]
    for strip in (wide, narrow):
        pixels = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
        assert {entry.color for entry in legend} <= pixels
    assert draw_legend([], 50, 12).shape == (0, 50, 3)


def test_a_grid_of_views_ends_with_the_legend():
    view = OneImage(np.zeros((2, 2, 3), np.uint8), segmentation(np.ones((2, 2)), CAT)).view(side_px=560)
    grid, bare = draw_view_grid([view], view.legend), draw_view_grid([view], ())
    assert (grid[: len(bare)] == bare).all()
    assert (grid[len(bare) :] == (220, 20, 60)).all(axis=2).any()


def test_images_are_found_by_their_ids():
    reader = Slices(3, {1})
    selection = find_images(reader, ["2", "1"])
    assert [image.image_id for image in selection.images] == [2, 1]
    assert [segment.category_id for segment in selection.segments] == [BACKGROUND, CAT]
    assert (selection.size_px, selection.notes) == (8, ())
    with pytest.raises(ConfigError, match=r"no image 'x'; its ids are '0', '1', '2'"):
        find_images(reader, ["1", "x"])
