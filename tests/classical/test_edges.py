"""Faces that lines and Canny's edges enclose."""

from __future__ import annotations

import numpy as np

from segkit.classical import build_classical
from segkit.classical.edges import fill_contours


def lines(*rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows])


def test_faces_that_lines_close_are_regions_with_their_lines() -> None:
    edges = lines(
        ".......",
        ".#####.",
        ".#.#.#.",
        ".#####.",
        ".......",
    )
    # The line between the faces belongs to the first; (1, 3), (2, 3) and (3, 3) touch both.
    assert fill_contours(edges).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_lines_joined_at_corners_are_closed_and_open_lines_are_not() -> None:
    assert fill_contours(lines(".....", "..#..", ".#.#.", "..#..", ".....")).tolist()[2] == [0, 1, 1, 1, 0]
    assert not fill_contours(lines(".....", "..#..", ".#.#.", ".....", ".....")).any()


def test_faces_at_the_images_border_are_background() -> None:
    assert not fill_contours(lines(".#...", "##...", ".....")).any()
    assert not fill_contours(np.ones((3, 3), dtype=bool)).any()
    assert not fill_contours(np.zeros((3, 3), dtype=bool)).any()


def square(gap: int) -> np.ndarray:
    """A dark line around a square in a bright image, with a gap in its upper side; the line's faces are closed."""
    image = np.full((30, 30, 1), 220, dtype=np.uint8)
    image[6:24, 6:24] = 20
    image[9:21, 9:21] = 220
    image[6:9, 15 : 15 + gap] = 220
    return image


def test_gaps_are_closed_up_to_their_width() -> None:
    def middle(gap: int, gap_px: int) -> int:
        return int(build_classical("canny", blur_px=0.0, gap_px=gap_px)(square(gap))[15, 15])

    assert middle(0, 0) > 0
    assert middle(4, 4) > 0
    assert middle(4, 0) == 0


def test_weak_edges_are_found_with_less_strength() -> None:
    # A square of +200 and one of +30: the middle between weak and strong gradients is above that of the weak one.
    image = np.full((40, 60, 1), 20, dtype=np.uint8)
    image[10:30, 8:28] += 200
    image[10:30, 34:54] += 30

    def found(strength: float) -> tuple[bool, bool]:
        labels = build_classical("canny", blur_px=1.0, gap_px=2, strength=strength)(image)
        return bool(labels[20, 18]), bool(labels[20, 44])

    assert found(1.0) == (True, False)
    assert found(0.1) == (True, True)
