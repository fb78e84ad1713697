"""Counts of matches per category and per image, and the metrics computed from them by hand."""

import math

import numpy as np
import pytest

from segkit.metrics.panoptic.counts import (
    Counts,
    average,
    averages,
    count,
    count_per_image,
    get_category_rows,
    percent,
    select_groups,
)
from segkit.metrics.panoptic.matching import match
from segkit.metrics.panoptic.overlaps import compute_overlaps, join
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

# Listed neither ascending nor descending; by category_id: 1 (thing), 5 (stuff), 9 (thing), 40 (stuff).
LISTED = [(9, True), (1, True), (40, False), (5, False)]
CATEGORIES = CategorySet(Category(i, f"c{i}", isthing, (0, 0, 0)) for i, isthing in LISTED)


def counts(iou, tp, fp, fn):
    return Counts(np.array(iou, dtype=float), *(np.array(column) for column in (tp, fp, fn)))


def test_quality_of_present_missed_and_absent_categories():
    pq, sq, rq = counts([1.5, 0, 0, 0], [2, 0, 0, 0], [1, 2, 0, 0], [1, 0, 3, 0]).quality()
    # 1.5 / (2 + 0.5 + 0.5), 1.5 / 2, 2 / 3; then no match: zeros; then no segment: not a number.
    np.testing.assert_array_equal(pq, [0.5, 0, 0, np.nan])
    np.testing.assert_array_equal(sq, [0.75, 0, 0, np.nan])
    np.testing.assert_array_equal(rq, [2 / 3, 0, 0, np.nan])


def test_averages_leave_out_absent_classes():
    # PQ by category_id: 1: 0.5, 5: absent, 9: 1, 40: absent.
    results = averages(counts([0.5, 0, 1, 0], [1, 0, 1, 0], [0] * 4, [0] * 4), CATEGORIES)
    assert (results["PQ"], results["PQ_th"], results["PQ_st"]) == (75.0, 75.0, None)
    assert (results["RQ"], results["SQ_st"], results["RQ_st"]) == (100.0, None, None)
    nothing = averages(counts([0] * 4, [0] * 4, [0] * 4, [0] * 4), CATEGORIES)
    assert set(nothing.values()) == {None}
    assert len(nothing) == 9


def test_the_order_listed_moves_the_last_bits_unless_exact():
    values = np.array([5 / 9, 7 / 9, 5 / 8, 4 / 5])  # by ascending category_id
    by_id = dict(zip((1, 5, 9, 40), values.tolist(), strict=True))
    total = ((by_id[9] + by_id[1]) + by_id[40]) + by_id[5]
    (listed,) = average([values], CATEGORIES, select_groups(CATEGORIES)[""])
    assert listed == 100 * (total / 4)
    (exact,) = average([values], CATEGORIES, select_groups(CATEGORIES)[""], exact=True)
    assert exact == 100 * (math.fsum(values.tolist()) / 4)
    orders = [LISTED, LISTED[::-1], sorted(LISTED)]
    sets = [CategorySet(Category(i, "c", thing, (0, 0, 0)) for i, thing in order) for order in orders]
    assert len({average([values], ordered, select_groups(ordered)[""])[0] for ordered in sets}) > 1
    assert {average([values], ordered, select_groups(ordered)[""], exact=True)[0] for ordered in sets} == {exact}


def test_rows_are_by_ascending_category_id():
    assert get_category_rows(CATEGORIES, np.array([40, 1, 9, 5, 1])).tolist() == [3, 0, 2, 1, 0]


@pytest.mark.parametrize(("value", "expected"), [(0.25, 25.0), (0.0, 0.0), (float("nan"), None)])
def test_percent(value, expected):
    assert percent(value) == expected


def panoptic(row, **category_of):
    segments = [Segment(int(name[1:]), category_id, True, 0) for name, category_id in category_of.items()]
    return PanopticSegmentation(np.array([row], dtype=np.int32), tuple(segments))


# Image a: 1 matches with 3 / 4 (category 9), 2 is missed (5). Image b: 1 matches (9), the rest of 4 is false (40).
IMAGE_A = panoptic([1, 1, 1, 1, 2, 2], s1=9, s2=5), panoptic([7, 7, 7, 0, 0, 0], s7=9)
IMAGE_B = panoptic([1, 1, 1, 5, 5, 5], s1=9, s5=1), panoptic([8, 8, 8, 4, 4, 4], s8=9, s4=40)
TABLE = join([(name, compute_overlaps(*pair, CATEGORIES)) for name, pair in (("a", IMAGE_A), ("b", IMAGE_B))])


def columns(counted):
    return [getattr(counted, name).tolist() for name in ("iou", "tp", "fp", "fn")]


@pytest.mark.parametrize("exact", [False, True])
def test_counts_over_images_and_per_image(exact):
    matching = match(TABLE)
    counted = count(TABLE, matching, CATEGORIES, exact=exact)
    assert columns(counted) == [[0, 0, 1.75, 0], [0, 0, 2, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    each = count_per_image(TABLE, matching, CATEGORIES)
    assert columns(each) == [
        [[0, 0, 0.75, 0], [0, 0, 1, 0]],
        [[0, 0, 1, 0], [0, 0, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 1]],
        [[0, 1, 0, 0], [1, 0, 0, 0]],
    ]


def test_only_segments_that_are_kept_count():
    gt_mask = TABLE.ground_truth["counted_px"] > 3  # 1 in image a: 4 pixels
    pred_mask = TABLE.prediction["counted_px"] > 3
    counted = count(TABLE, match(TABLE), CATEGORIES, gt_mask=gt_mask, pred_mask=pred_mask)
    assert columns(counted) == [[0, 0, 0.75, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_counts_of_no_image():
    table = join([])
    zeros = [0, 0, 0, 0]
    for exact in (False, True):
        assert columns(count(table, match(table), CATEGORIES, exact=exact)) == [zeros] * 4
    assert count_per_image(table, match(table), CATEGORIES).iou.shape == (0, 4)
