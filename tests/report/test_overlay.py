from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.report import draw_instances, draw_panoptic, labels, palette
from segkit.structures import Category, CategorySet, InstanceMasks, PanopticSegmentation, Segment, default_color

SKY, GRASS, CAT = 3, 5, 90
CATEGORIES = CategorySet(
    [
        Category(SKY, "sky", False, (200, 0, 50)),
        Category(GRASS, "grass", False, (0, 100, 0)),
        Category(CAT, "cat", True, (10, 250, 120)),
    ]
)


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def panoptic(ids: object, *category_ids: int, **kwargs: object) -> PanopticSegmentation:
    """Segments 1, 2, ... of the given categories."""
    ids = np.asarray(ids, dtype=np.int32)
    segments = (
        Segment(n, c, CATEGORIES[c].isthing if c in CATEGORIES else True, int((ids == n).sum()), **kwargs)
        for n, c in enumerate(category_ids, 1)
    )
    return PanopticSegmentation(ids, tuple(segments))


def instances(full: np.ndarray, scores: list[float], class_ids: list[int]) -> InstanceMasks:
    boxes = np.zeros((len(full), 4), dtype=np.float32)
    return InstanceMasks.from_full(full, boxes, np.array(scores, np.float32), np.array(class_ids, np.int64))


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, (100, 100, 100)), (0.5, (150, 50, 75)), (1.0, (200, 0, 50))])
def test_stuff_takes_the_categorys_colour_by_alpha(alpha, expected):
    # 100 * (1 - alpha) + colour * alpha; the only segment ends at the image's border, where no outline is drawn.
    drawn = draw_panoptic(grey(8, 8), panoptic(np.ones((8, 8)), SKY), CATEGORIES, alpha=alpha)
    assert (drawn == expected).all()


def test_borders_between_segments_are_outlined_once():
    ids = np.repeat([[1] * 4 + [2] * 4], 8, axis=0)
    drawn = draw_panoptic(grey(8, 8), panoptic(ids, SKY, GRASS), CATEGORIES, alpha=0.5)
    # the outline is 0.4 * colour + 0.6 * 255 = 153 + (0, 40, 0), one pixel, in the later of two equally large segments
    assert (drawn[:, :4] == (150, 50, 75)).all()
    assert (drawn[:, 4] == (153, 193, 153)).all()
    assert (drawn[:, 5:] == (50, 100, 50)).all()


def test_void_is_dark_grey_and_hatched():
    image = grey(8, 8)
    image[..., 0] = 130  # mean 110
    drawn = draw_panoptic(image, panoptic(np.zeros((8, 8))), CATEGORIES, hatch_void=True)
    # stripes 4 wide, (x + y) % 4 < 2: 110 * 0.4 = 44; between them 110 * 0.6 = 66
    striped = np.add.outer(np.arange(8), np.arange(8)) % 4 < 2
    assert (drawn == np.where(striped, 44, 66)[..., None]).all()


def test_unlabelled_pixels_and_background_stay_as_they_are():
    ids = np.array([[1, 1, 0, 2]] * 4).repeat(3, axis=0).repeat(3, axis=1)
    categories = CategorySet([Category(1, "Background", False, (0, 0, 0)), Category(2, "cat", True, (10, 250, 120))])
    segmentation = PanopticSegmentation(ids.astype(np.int32), (Segment(1, 1, False, 72), Segment(2, 2, True, 36)))
    changed = (draw_panoptic(grey(12, 12), segmentation, categories) != 100).any(axis=2)
    assert (changed == (ids == 2)).all()


def test_crowds_are_hatched_and_keep_the_class_colour():
    drawn = draw_panoptic(grey(8, 8), panoptic(np.ones((8, 8)), CAT, iscrowd=True), CATEGORIES, alpha=1.0)
    striped = np.add.outer(np.arange(8), np.arange(8)) % 4 < 2
    assert (drawn[striped] == (10, 250, 120)).all()
    # between the stripes 35 % of colour over 65 % of 100: (68.5, 152.5, 107), halves to even
    assert (drawn[~striped] == (68, 152, 107)).all()


def test_instances_of_a_class_get_different_colours_near_the_class():
    ids = np.arange(1, 41, dtype=np.int32).reshape(5, 8).repeat(5, axis=0).repeat(5, axis=1)
    segmentation = panoptic(ids, *[CAT] * 40)
    drawn = draw_panoptic(grey(25, 40), segmentation, CATEGORIES, alpha=1.0)
    colors = drawn[2::5, 2::5].reshape(-1, 3).astype(int)
    assert tuple(colors[0]) == (10, 250, 120)
    assert len({tuple(color) for color in colors}) == 40
    assert np.abs(colors - (10, 250, 120)).max() <= palette.SPREAD
    shuffled = PanopticSegmentation(ids, segmentation.segments[::-1])
    assert (draw_panoptic(grey(25, 40), shuffled, CATEGORIES, alpha=1.0) == drawn).all()


def test_labels_stay_inside_their_segment_and_name_class_and_score(monkeypatch):
    written = []
    render = labels.render_text
    monkeypatch.setattr(labels, "render_text", lambda text, size: written.append(text) or render(text, size))
    ids = np.zeros((200, 300), dtype=np.int32)
    ids[40:160, 60:220] = 1
    segmentation = panoptic(ids, CAT, score=0.934)
    plain = draw_panoptic(grey(200, 300), segmentation, CATEGORIES, names=False)
    assert not written
    named = draw_panoptic(grey(200, 300), segmentation, CATEGORIES)
    assert written[-1] == "cat 0.93"  # earlier ones were measured
    changed = (named != plain).any(axis=2)
    assert changed.sum() > 300
    assert (ids[changed] == 1).all()


def test_scores_and_names_can_be_left_out():
    ids = np.ones((200, 300), dtype=np.int32)
    segmentation = panoptic(ids, CAT, score=0.934)
    drawings = [
        draw_panoptic(grey(200, 300), segmentation, CATEGORIES, **options)
        for options in ({}, {"scores": False}, {"names": False})
    ]
    unlabelled = panoptic(ids, CAT)
    assert (drawings[1] == draw_panoptic(grey(200, 300), unlabelled, CATEGORIES)).all()
    widths = [int((drawing != drawings[2]).any(axis=(0, 2)).sum()) for drawing in drawings]
    assert widths[0] > widths[1] > widths[2] == 0


@pytest.mark.parametrize("width", [199, 200])
def test_narrow_images_have_no_text(width):
    segmentation = panoptic(np.ones((200, width)), SKY)
    named, plain = (draw_panoptic(grey(200, width), segmentation, CATEGORIES, names=names) for names in (True, False))
    assert (named == plain).all() == (width < 200)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 400), (400, 1)])
def test_any_size_is_drawn(shape):
    assert draw_panoptic(grey(*shape), panoptic(np.zeros(shape)), CATEGORIES).shape == (*shape, 3)
    assert draw_panoptic(grey(*shape), panoptic(np.ones(shape), CAT), CATEGORIES).shape == (*shape, 3)


def test_inputs_are_not_modified_and_may_be_read_only():
    image, ids = grey(8, 8), np.ones((8, 8), dtype=np.int32)
    image.flags.writeable = ids.flags.writeable = False
    draw_panoptic(image, panoptic(ids, SKY), CATEGORIES)
    draw_instances(image, instances(np.ones((1, 8, 8), bool), [1.0], [0]), ["cat"])
    assert (image == 100).all()


@pytest.mark.parametrize(
    ("image", "ids", "category_ids", "alpha", "message"),
    [
        (grey(8, 8), np.ones((8, 7)), [SKY], 0.5, r"segment_ids must have the image's shape \(8, 8\), got \(8, 7\)"),
        (grey(8, 8).astype(float), np.ones((8, 8)), [SKY], 0.5, r"image must be .* uint8 RGB, got \(8, 8, 3\) float64"),
        (grey(8, 8)[..., 0], np.ones((8, 8)), [SKY], 0.5, "image must be"),
        (grey(8, 8), np.ones((8, 8)), [4], 0.5, r"category_id of every segment must be in categories, got \[4\]"),
        (grey(8, 8), np.full((8, 8), 2), [SKY], 0.5, r"one Segment per id in the map, got none for \[2\]"),
        (grey(8, 8), np.ones((8, 8)), [SKY], 55, "alpha must be in"),
    ],
)
def test_invalid_arguments_are_rejected(image, ids, category_ids, alpha, message):
    with pytest.raises(ValueError, match=message):
        draw_panoptic(image, panoptic(ids, *category_ids), CATEGORIES, alpha=alpha)


def test_small_instances_are_drawn_over_large_ones_in_any_order():
    full = np.zeros((2, 20, 20), dtype=bool)
    full[0, 5:11, 5:11] = True
    full[1] = True
    drawn = draw_instances(grey(20, 20), instances(full, [1.0, 1.0], [0, 1]), ["a", "b"], alpha=1.0)
    reversed_order = draw_instances(grey(20, 20), instances(full[::-1], [1.0, 1.0], [1, 0]), ["a", "b"], alpha=1.0)
    assert (drawn == reversed_order).all()
    assert (drawn[7, 7] == default_color(0)).all()
    assert (drawn[15, 15] == default_color(1)).all()


def test_instances_below_the_score_are_not_drawn():
    masks = instances(np.ones((1, 8, 8), bool), [0.5], [0])
    assert (draw_instances(grey(8, 8), masks, ["a"], min_score=0.6) == 100).all()
    assert (draw_instances(grey(8, 8), masks, ["a"]) != 100).any()  # a score equal to min_score is drawn


def test_no_instances_give_a_copy():
    image = grey(8, 8)
    drawn = draw_instances(image, instances(np.zeros((0, 8, 8), bool), [], []), [])
    assert (drawn == image).all()
    assert not np.shares_memory(drawn, image)
    empty_mask = instances(np.zeros((1, 8, 8), bool), [1.0], [0])
    assert (draw_instances(image, empty_mask, ["a"]) == image).all()


@pytest.mark.parametrize("class_id", [-1, 1])
def test_a_class_without_name_is_rejected(class_id):
    with pytest.raises(ValueError, match=f"got 1 for class id {class_id}"):
        draw_instances(grey(8, 8), instances(np.ones((1, 8, 8), bool), [1.0], [class_id]), ["a"])


def test_masks_of_another_size_are_rejected():
    with pytest.raises(ValueError, match=r"image's size \(8, 9\), got \(8, 8\)"):
        draw_instances(grey(8, 9), instances(np.ones((1, 8, 8), bool), [1.0], [0]), ["a"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 219), st.integers(1, 60), st.integers(1, 220), st.integers(0, 2)),
        max_size=6,
    )
)
def test_no_pixel_outside_of_the_masks_changes(boxes):
    full = np.zeros((len(boxes), 60, 220), dtype=bool)
    for mask, (top, left, height, width, _) in zip(full, boxes, strict=True):
        mask[top : top + height, left : left + width] = True
    masks = instances(full, [0.9] * len(boxes), [box[4] for box in boxes])
    drawn = draw_instances(grey(60, 220), masks, ["cat", "a rather long name", "i"], names=False)
    assert (drawn[~full.any(axis=0)] == 100).all()


def test_the_outline_of_a_hidden_part_is_drawn():
    full = np.zeros((2, 20, 20), dtype=bool)
    full[0, 2:18, 2:10] = True
    full[1, 6:12, 6:16] = True  # smaller: it is on top of the right border of the first one, column 9
    drawn = draw_instances(grey(20, 20), instances(full, [1.0, 1.0], [0, 1]), ["a", "b"], alpha=1.0)
    outlines = [np.rint(np.array(default_color(i)) * 0.4 + 153) for i in (0, 1)]  # 60 % white
    assert (drawn[2:18, 9] == outlines[0]).all()
    assert (drawn[6:12, 15] == outlines[1]).all()
    assert (drawn[8, [7, 8, 10, 11]] == default_color(1)).all()
