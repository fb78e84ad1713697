from __future__ import annotations

import numpy as np
import pytest

from segkit.report import draw_image_grid


def rgb(values: object) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def test_small_images_grow_by_whole_factors():
    # 9 // 2 = 4: an 8 x 8 block with the gap of 4 around it
    grid = draw_image_grid([[rgb([[0, 50], [100, 150]])]], [""], cell_px=9)
    assert grid.shape == (16, 16, 3)
    expected = np.full((16, 16), 255)
    expected[4:12, 4:12] = np.kron([[0, 50], [100, 150]], np.ones((4, 4)))
    assert (grid == expected[..., None]).all()


def test_large_images_shrink_by_averaging():
    # 4 x 4 to 2 x 2: every 2 x 2 block's mean
    image = rgb([[0, 40, 100, 100], [40, 80, 100, 100], [8, 8, 0, 0], [8, 8, 4, 4]])
    grid = draw_image_grid([[image]], [""], cell_px=2)
    assert grid[4:6, 4:6, 0].tolist() == [[40, 100], [8, 2]]


def test_the_aspect_is_kept_and_long_images_keep_a_pixel():
    grid = draw_image_grid([[rgb(np.zeros((200, 100)))], [rgb(np.zeros((1, 1000)))]], [""], cell_px=50)
    ink = grid[..., 0] == 0
    assert ink.sum() == 50 * 25 + 1 * 50


def test_images_of_all_sizes_are_centred_in_their_columns():
    grid = draw_image_grid(
        [[rgb(np.zeros((10, 10))), rgb(np.zeros((10, 5)))], [rgb(np.zeros((5, 10)))] * 2], ["", ""], cell_px=10
    )
    # widths 10 and 10, heights 10 and 5: lefts 4 and 18, tops 4 and 18
    assert grid.shape == (4 + 14 + 9, 4 + 14 + 14, 3)
    assert (grid[4:14, 20:25] == 0).all()
    assert (grid[4:14, 18:20] == 255).all()
    assert (grid[18:23, 4:14] == 0).all()


def test_titles_are_written_over_columns_and_before_rows():
    white = rgb(np.full((50, 50), 255))
    bare = draw_image_grid([[white, white]], ["", ""], cell_px=50)
    titled = draw_image_grid([[white, white]], ["", "ground_truth"], ["first"], cell_px=50)
    assert (bare == 255).all()
    assert titled.shape[0] > bare.shape[0]
    assert titled.shape[1] > bare.shape[1]
    rows, columns = np.nonzero(titled[..., 0] < 128)
    over = rows < titled.shape[0] - 54
    assert columns[over].min() > titled.shape[1] - 54  # "ground_truth" over the second column
    assert columns[~over].max() < titled.shape[1] - 2 * 54  # "first" left of both


def test_a_row_is_as_high_as_its_title():
    thin = rgb(np.zeros((1, 50)))
    grid = draw_image_grid([[thin]], [""], ["row"], cell_px=50)
    assert 4 + 10 + 4 <= grid.shape[0] <= 4 + 16 + 4
    assert (grid[grid.shape[0] // 2 - 1, -54:-4] == 0).all() or (grid[grid.shape[0] // 2, -54:-4] == 0).all()


def test_long_titles_do_not_widen_the_grid():
    image = rgb(np.zeros((50, 50)))
    short = draw_image_grid([[image]], ["a"], ["a" * 30], cell_px=50)
    long = draw_image_grid([[image]], ["a" * 5000], ["a" * 5000], cell_px=50)
    assert abs(long.shape[1] - short.shape[1]) <= 10
    assert long.shape[0] == short.shape[0]


def test_without_rows_only_the_titles_are_drawn():
    grid = draw_image_grid([], ["image", "ground_truth"], [], cell_px=100)
    assert (grid < 128).any()
    assert grid.shape[1] > 200


@pytest.mark.parametrize(
    ("rows", "titles", "row_titles", "message"),
    [
        ([], [], None, "column_titles must have at least one entry"),
        ([[rgb([[0]])]], ["a", "b"], None, "got 1 for 2 in row 0"),
        ([[rgb([[0]])]], ["a"], ["b", "c"], "got 2 for 1 rows"),
        ([[rgb([[0]])[..., 0]]], ["a"], None, r"images of row 0 must be \(H, W, 3\) uint8 RGB, got \(1, 1\) uint8"),
        ([[rgb([[0]]).astype(float)]], ["a"], None, "float64"),
        ([[rgb(np.zeros((0, 4)))]], ["a"], None, "must not be empty"),
    ],
)
def test_invalid_arguments_are_rejected(rows, titles, row_titles, message):
    with pytest.raises(ValueError, match=message):
        draw_image_grid(rows, titles, row_titles)


def test_a_cell_of_zero_pixels_is_rejected():
    with pytest.raises(ValueError, match="cell_px must be at least 1, got 0"):
        draw_image_grid([[rgb([[0]])]], ["a"], cell_px=0)
