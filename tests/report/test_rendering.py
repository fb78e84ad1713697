from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.report import rendering as text
from segkit.report.rendering import check_rgb, draw_ink, encode_data_uri, find_largest_box, render_text, shorten

MASKS = arrays(
    np.bool_, st.tuples(st.integers(0, 12), st.integers(0, 12)), elements=st.sampled_from([True, True, False])
)


def test_texts_of_one_size_have_one_height():
    assert len({render_text(line, 14).shape[0] for line in ("a", "Ágjy", "", "…", "ñ я λ")}) == 1
    assert render_text("Ag", 28).shape[0] > 1.7 * render_text("Ag", 14).shape[0]


def test_ink_is_drawn_and_empty_text_has_none():
    assert render_text("Ag", 14).max() > 200
    assert render_text(" \n", 14).shape[1] == 0
    assert (render_text("two\nlines", 14) == render_text("two lines", 14)).all()


def test_what_cannot_be_shown_is_escaped():
    assert np.array_equal(render_text("a\u202e\x1bb", 14), render_text("a\\u202e\\x1bb", 14))


def test_letters_outside_ascii_have_their_own_glyphs():
    assert not np.array_equal(render_text("я", 20), render_text("λ", 20))


def test_without_matplotlibs_font_text_is_still_drawn(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    text._font.cache_clear()
    assert render_text("Ag", 14).max() > 200
    text._font.cache_clear()


def test_shorten_keeps_what_fits():
    width = render_text("background", 14).shape[1]
    assert shorten("background", 14, width) == "background"
    cut = shorten("background", 14, width - 1)
    begin, end = cut.split("…")
    assert "background".startswith(begin)
    assert "background".endswith(end)
    assert len(begin) - len(end) in (0, 1)
    assert render_text(cut, 14).shape[1] < width
    assert shorten("background", 14, 1) == ""
    assert shorten("", 14, 0) == ""


def test_draw_ink_blends_by_coverage():
    canvas = np.full((2, 3, 3), 100, dtype=np.uint8)
    draw_ink(canvas, np.array([[0, 51, 255]], dtype=np.uint8), 0, 1, (200, 0, 100))
    # 51 / 255 = 0.2: 100 * 0.8 + 0.2 * (200, 0, 100)
    assert canvas[1].tolist() == [[100, 100, 100], [120, 80, 100], [200, 0, 100]]
    assert (canvas[0] == 100).all()


@given(MASKS)
def test_a_square_is_the_largest_odd_one_inside(mask):
    left, top, width, height = find_largest_box(mask, 1.0)
    sides = (s for s in range(11, 0, -2) if _fits_somewhere(mask, s))
    assert width == height == next(sides, 0)
    assert mask[top : top + height, left : left + width].all()


@settings(max_examples=200)
@given(MASKS, st.floats(0.2, 12))
def test_a_box_of_any_aspect_lies_inside(mask, aspect):
    left, top, width, height = find_largest_box(mask, aspect)
    assert left >= 0
    assert top >= 0
    assert mask[top : top + height, left : left + width].shape == (height, width)
    assert mask[top : top + height, left : left + width].all()


@pytest.mark.parametrize(
    ("shape", "aspect", "expected"),
    [
        ((9, 9), 1.0, (0, 0, 9, 9)),
        ((3, 9), 1.0, (3, 0, 3, 3)),  # seven 3 x 3 squares fit: the middle one
        ((3, 9), 3.0, (0, 0, 9, 3)),
        ((9, 3), 3.0, (0, 4, 3, 1)),
        ((0, 9), 1.0, (0, 0, 0, 0)),
        ((9, 2), 3.0, (0, 0, 0, 0)),  # narrower than one pixel's height of text
    ],
)
def test_boxes_in_a_whole_rectangle(shape, aspect, expected):
    assert find_largest_box(np.ones(shape, dtype=bool), aspect) == expected


def _fits_somewhere(mask: np.ndarray, side: int) -> bool:
    if side > min(mask.shape):
        return False
    return bool(np.lib.stride_tricks.sliding_window_view(mask, (side, side)).all(axis=(2, 3)).any())


def decoded(uri: str) -> np.ndarray:
    content = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), dtype=np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def test_small_images_are_kept_exactly():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    uri = encode_data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    assert (decoded(uri) == image).all()


def test_large_images_become_jpegs_with_red_still_red():
    image = np.zeros((257, 256, 3), dtype=np.uint8)
    image[..., 0] = 200
    uri = encode_data_uri(image)
    assert uri.startswith("data:image/jpeg;base64,")
    assert np.abs(decoded(uri).astype(int) - image).max() <= 3


def test_invalid_images_are_rejected():
    with pytest.raises(ValueError, match=r"image must not be empty, got \(0, 3, 3\)"):
        encode_data_uri(np.zeros((0, 3, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"truth must be \(H, W, 3\) uint8 RGB, got \(2, 2, 4\) uint8"):
        check_rgb(np.zeros((2, 2, 4), dtype=np.uint8), "ground_truth")
