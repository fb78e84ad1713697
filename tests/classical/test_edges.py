from __future__ import annotations

import cv2
import numpy as np
import pytest

from segkit.classical import canny_edges, edge_regions, enclosed_regions


def lines(*rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows])


def test_faces_that_lines_close_are_regions_with_their_lines():
    edges = lines(
        ".......",
        ".#####.",
        ".#.#.#.",
        ".#####.",
        ".......",
    )
    # The line between the faces belongs to the first; (1, 3), (2, 3) and (3, 3) touch both.
    assert enclosed_regions(edges).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 1, 1, 1, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_lines_joined_at_corners_are_closed_and_open_lines_are_not():
    assert enclosed_regions(lines(".....", "..#..", ".#.#.", "..#..", ".....")).tolist()[2] == [0, 1, 1, 1, 0]
    assert not enclosed_regions(lines(".....", "..#..", ".#.#.", ".....", ".....")).any()


def test_faces_at_the_images_border_are_background():
    assert not enclosed_regions(lines(".#...", "##...", ".....")).any()
    assert not enclosed_regions(np.ones((3, 3), dtype=bool)).any()
    assert not enclosed_regions(np.zeros((3, 3), dtype=bool)).any()


def test_small_faces_are_background():
    edges = lines("........", ".######.", ".#.#..#.", ".######.", "........")
    assert enclosed_regions(edges, min_area_px=2).tolist()[2] == [0, 0, 0, 1, 1, 1, 1, 0]


def test_edges_follow_a_step():
    gray = np.zeros((8, 8), dtype=np.uint8)
    gray[:, 4:] = 100
    columns = np.flatnonzero(canny_edges(gray).any(axis=0))
    assert len(columns) == 1
    assert columns[0] in (3, 4)
    # the step's gradient is 4 * 100
    assert canny_edges(gray, 100, 399).any()
    assert not canny_edges(gray, 100, 401).any()


def test_the_threshold_separates_strong_from_weak_edges():
    gray = np.full((20, 60), 20, dtype=np.uint8)
    gray[:, 20:] += 5
    gray[:, 40:] += 200
    columns = np.flatnonzero(canny_edges(gray).any(axis=0))
    assert set(columns) <= {39, 40}
    assert len(columns) == 1


@pytest.mark.parametrize("bright", [True, False])
def test_a_disc_is_found_to_a_pixel(bright):
    canvas = np.zeros((40, 40), dtype=np.uint8)
    cv2.circle(canvas, (20, 18), 9, 1, -1)
    disc = canvas > 0
    gray = np.where(disc == bright, 180, 40).astype(np.uint8)
    regions = edge_regions(gray)
    assert regions.max() == 1
    inner, outer = cv2.erode(canvas, np.ones((3, 3))) > 0, cv2.dilate(canvas, np.ones((3, 3))) > 0
    assert (regions[inner] == 1).all()
    assert not regions[~outer].any()


def test_gaps_are_closed_up_to_their_width(monkeypatch):
    def regions(gap: int, gap_px: int) -> int:
        edges = np.zeros((30, 30), dtype=bool)
        edges[5, 5:25] = edges[24, 5:25] = edges[5:25, 5] = edges[5:25, 24] = True
        edges[5, 12 : 12 + gap] = False
        monkeypatch.setattr("segkit.classical.edges.canny_edges", lambda *args: edges)
        return int(edge_regions(np.zeros((30, 30), np.uint8), gap_px=gap_px).max())

    for gap_px in range(1, 6):
        assert regions(gap_px, gap_px) == 1
        assert regions(gap_px + 2, gap_px) == 0
    assert regions(0, 0) == 1


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (5, 7)])
def test_flat_and_empty_images_have_no_edge(shape):
    gray = np.full(shape, 9, dtype=np.uint8)
    assert canny_edges(gray).shape == shape
    assert not canny_edges(gray).any()
    regions = edge_regions(gray)
    assert (regions.shape, regions.dtype, regions.any()) == (shape, np.int32, False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: canny_edges(np.zeros((2, 2))), r"gray must be \(H, W\) uint8, got \(2, 2\) float64"),
        (lambda: enclosed_regions(np.zeros((2, 2), np.uint8)), r"edges must be \(H, W\) bool, got \(2, 2\) uint8"),
        (lambda: edge_regions(np.zeros((2, 2), np.uint8), gap_px=-1), "gap_px must be at least 0, got -1"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
