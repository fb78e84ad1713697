"""Panoptic quality on hand-drawn maps, and against panopticapi on drawn and random ones."""

import contextlib
import io
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.metrics import PanopticQuality
from segkit.structures import MAX_SEGMENT_ID, Category, CategorySet, DatasetError, PanopticSegmentation, Segment
from segkit.structures import ids_to_rgb as to_rgb

try:
    from panopticapi import evaluation as panopticapi
except ImportError:
    panopticapi = None
needs_panopticapi = pytest.mark.skipif(panopticapi is None, reason="panopticapi is not installed: no oracle for PQ")

CAR, DOG, SKY, SEA = 1, 17, 90, 200
NAMES = {CAR: "car", DOG: "dog", SKY: "sky", SEA: "sea"}
CATEGORIES = CategorySet(Category(i, name, i in (CAR, DOG), (0, 0, 0)) for i, name in NAMES.items())


def panoptic(rows, crowds=(), area_px=None, **category_of):
    """PanopticSegmentation of literal rows; s5=CAR makes segment 5 a car."""
    ids = np.array(rows, dtype=np.int32)
    segments = []
    for name, category_id in category_of.items():
        segment_id = int(name[1:])
        area = int((ids == segment_id).sum()) if area_px is None else area_px
        isthing = category_id in (CAR, DOG)
        segments.append(Segment(segment_id, category_id, isthing, area, iscrowd=segment_id in crowds))
    return PanopticSegmentation(ids, tuple(segments))


def score(truth, prediction, categories=CATEGORIES):
    metric = PanopticQuality(categories)
    metric.update(1, truth, prediction)
    return metric.compute()


def counts(results, category_id):
    one = results["per_class"][str(category_id)]
    return one["tp"], one["fp"], one["fn"]


TRUTH = panoptic([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 3], [3, 3, 3, 3]], s1=CAR, s2=CAR, s3=SKY)
PREDICTION = panoptic([[5, 5, 6, 6], [5, 5, 6, 9], [5, 5, 8, 8], [8, 8, 8, 9]], s5=CAR, s6=CAR, s8=SKY, s9=CAR)


def test_drawn_scene():
    results = score(TRUTH, PREDICTION)
    # car: 5 on 1: 4 / (6 + 4 - 4 - 2 on void) = 1; 6 on 2: 3 / (3 + 4 - 3) = 0.75; 9 meets 2 in 1 of 5 pixels: fp.
    # PQ = 1.75 / (2 + 0.5) = 0.7, SQ = 1.75 / 2, RQ = 2 / 2.5.
    car = {"PQ": pytest.approx(70), "SQ": pytest.approx(87.5), "RQ": pytest.approx(80), "tp": 2, "fp": 1, "fn": 0}
    # sky: 8 on 3: 5 / (5 + 6 - 5) = 5 / 6, and nothing else.
    sky = {"PQ": pytest.approx(500 / 6), "SQ": pytest.approx(500 / 6), "RQ": pytest.approx(100)}
    nothing = {"PQ": None, "SQ": None, "RQ": None, "tp": 0, "fp": 0, "fn": 0}
    by_size = results.pop("by_size")
    assert by_size["small"] == {name: results[name] for name in by_size["small"]}  # all are below 32 x 32 pixels
    assert {*by_size["medium"].values(), *by_size["large"].values()} == {None}
    assert [results.pop(f"PQ{size}") for size in "sml"] == [results["PQ"], None, None]
    assert results == {
        "PQ": pytest.approx((70 + 500 / 6) / 2),
        "SQ": pytest.approx((87.5 + 500 / 6) / 2),
        "RQ": pytest.approx(90),
        "PQ_th": pytest.approx(70),
        "SQ_th": pytest.approx(87.5),
        "RQ_th": pytest.approx(80),
        "PQ_st": pytest.approx(500 / 6),
        "SQ_st": pytest.approx(500 / 6),
        "RQ_st": pytest.approx(100),
        "per_class": {"1": car, "17": nothing, "90": {**sky, "tp": 1, "fp": 0, "fn": 0}, "200": nothing},
    }


def test_an_iou_of_exactly_one_half_is_no_match():
    truth = panoptic([[1, 1, 1, 1]], s1=CAR)
    # 2 of 4 pixels: 2 / (2 + 4 - 2) = 0.5. 3 of 4: 0.75.
    assert counts(score(truth, panoptic([[2, 2, 0, 0]], s2=CAR)), CAR) == (0, 1, 1)
    assert counts(score(truth, panoptic([[2, 2, 2, 0]], s2=CAR)), CAR) == (1, 0, 0)


def test_the_union_leaves_out_predicted_pixels_on_void():
    truth = panoptic([[1, 1, 0, 0, 0]], s1=CAR)
    # 2 / (5 + 2 - 2) = 0.4 with void, 2 / (5 + 2 - 2 - 3) = 1 without.
    results = score(truth, panoptic([[2, 2, 2, 2, 2]], s2=CAR))
    assert counts(results, CAR) == (1, 0, 0)
    assert results["SQ"] == 100.0


def test_another_category_never_matches():
    results = score(panoptic([[1, 1]], s1=CAR), panoptic([[2, 2]], s2=DOG))
    assert (counts(results, CAR), counts(results, DOG)) == ((0, 0, 1), (0, 1, 0))
    assert (results["PQ"], results["SQ"], results["RQ"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("void_px", "fp"), [(2, 1), (3, 0)])
def test_an_unmatched_prediction_is_dropped_with_more_than_half_on_void(void_px, fp):
    # 4 predicted pixels: 2 on void are half (counted), 3 are more (dropped).
    truth = panoptic([[0] * void_px + [1] * (4 - void_px)], s1=DOG)
    assert counts(score(truth, panoptic([[2, 2, 2, 2]], s2=CAR)), CAR) == (0, fp, 0)


def test_a_crowd_is_no_match_and_hides_its_own_category_only():
    truth = panoptic([[1, 1, 1, 1, 2, 2, 2, 2]], crowds=[1], s1=CAR, s2=SKY)
    results = score(truth, panoptic([[3, 3, 4, 4, 4, 5, 5, 5]], s3=CAR, s4=DOG, s5=SKY))
    # 3 is a car on a crowd of cars: dropped. 4 is a dog, 2 of 3 pixels on that crowd: fp. 5: 3 / (3 + 4 - 3), a match.
    # The crowd itself is not missed.
    assert [counts(results, c) for c in (CAR, DOG, SKY)] == [(0, 0, 0), (0, 1, 0), (1, 0, 0)]


def test_void_and_crowd_add_up():
    truth = panoptic([[0, 1, 2, 2]], crowds=[1], s1=CAR, s2=SKY)
    # One of 3 on void and one on the crowd: 2 / 3 > 0.5, dropped; either alone is not enough.
    assert counts(score(truth, panoptic([[3, 3, 3, 0]], s3=CAR)), CAR) == (0, 0, 0)


@pytest.mark.parametrize(("order", "fp"), [("s1 s2", 1), ("s2 s1", 0)])
def test_of_two_crowds_the_last_in_order_counts(order, fp):
    category_of = dict.fromkeys(order.split(), CAR)
    truth = panoptic([[1, 1, 2, 2]], crowds=[1, 2], **category_of)
    assert counts(score(truth, panoptic([[3, 3, 0, 0]], s3=CAR)), CAR) == (0, fp, 0)


def test_true_areas_are_those_of_the_map():
    right = score(TRUTH, PREDICTION)
    wrong = PanopticSegmentation(TRUTH.segment_ids, tuple(replace(s, area_px=1, isthing=False) for s in TRUTH.segments))
    assert score(wrong, PREDICTION) == right


@pytest.mark.parametrize("rows", [[[0, 0], [0, 0]], np.zeros((0, 4)), np.zeros((3, 0))])
def test_all_void_and_empty_maps_give_none(rows):
    results = score(panoptic(rows), panoptic(rows))
    single = {name: value for name, value in results.items() if not isinstance(value, dict)}
    assert set(single) == {n + s for n in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")} | {"PQs", "PQm", "PQl"}
    assert set(single.values()) == {None}


def test_nothing_scored_gives_none():
    assert PanopticQuality(CATEGORIES).compute()["PQ"] is None
    assert PanopticQuality(CATEGORIES).compute([])["PQ"] is None


def test_a_dataset_without_stuff_has_none_for_stuff():
    things = CategorySet([CATEGORIES[CAR]])
    results = score(panoptic([[1]], s1=CAR), panoptic([[1]], s1=CAR), things)
    assert (results["PQ"], results["PQ_th"], results["PQ_st"]) == (100.0, 100.0, None)


ONE = panoptic([[1, 1]], s1=CAR)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (panoptic([[1], [1]], s1=CAR), "image 'x': expected .* one size, got 1 x 2 and 2 x 1"),
        (panoptic([[1, 2]], s1=CAR), "{role}, segment 2: expected a segment for every id of the map, got 1 pixels"),
        (panoptic([[1, -3]], s1=CAR), "{role}, segment -3: expected a segment for every id"),
        (panoptic([[1, 1]], s1=CAR, s2=CAR), "{role}, segment 2: expected pixels with this id in the map, got none"),
        (panoptic([[1, 0]], s1=CAR, s0=CAR), "{role}, segment 0: expected a segment id in \\[1, 16777215\\]"),
        (panoptic([[2**24, 1]], s16777216=CAR, s1=CAR), "{role}, segment 16777216: expected a segment id"),
        (panoptic([[1, 1]], s1=7), "{role}, segment 1: expected a category_id out of \\[1, 17, 90, 200\\], got 7"),
        (replace(ONE, segments=ONE.segments * 2), "{role}, segment 1: expected every segment once"),
    ],
)
def test_contradictory_maps_are_refused_and_not_counted(prediction, message):
    metric = PanopticQuality(CATEGORIES)
    with pytest.raises(DatasetError, match=message.format(role="image 'x', prediction")):
        metric.update("x", ONE, prediction)
    with pytest.raises(DatasetError, match=r"^image 'x'"):
        metric.update("x", prediction, ONE)
    metric.update("x", ONE, ONE)
    assert metric.compute()["PQ"] == 100.0


def test_the_same_image_twice_is_refused():
    metric = PanopticQuality(CATEGORIES)
    metric.update(4, ONE, ONE)
    with pytest.raises(DatasetError, match=r"^image 4: expected every image once"):
        metric.update(4, ONE, ONE)
    other = PanopticQuality(CATEGORIES)
    other.update(4, ONE, ONE)
    with pytest.raises(DatasetError, match="image 4 in both"):
        metric.merge(other)
    assert counts(metric.compute(), CAR) == (1, 0, 0)


def test_other_categories_are_not_merged():
    with pytest.raises(ValueError, match="same categories"):
        PanopticQuality(CATEGORIES).merge(PanopticQuality(CategorySet([CATEGORIES[CAR]])))


def test_the_state_is_small_and_pickles():
    metric = PanopticQuality(CATEGORIES)
    for image_id in range(100):
        metric.update(image_id, TRUTH, PREDICTION)
    pickled = pickle.dumps(metric)
    assert len(pickled) < 100 * 700  # bytes: seven segments and eight pairs per image
    assert pickle.loads(pickled).compute() == metric.compute()


# Against the reference


def reference(images, categories=CATEGORIES):
    """panopticapi's PQStat of (truth, prediction) pairs, by PNG files, with true areas counted from the maps."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        pairs = []
        for index, pair in enumerate(images):
            pairs.append([])
            for role, one in zip(("truth", "prediction"), pair, strict=True):
                name = f"{role}_{index}.png"
                Image.fromarray(to_rgb(one.segment_ids)).save(Path(folder) / name)
                infos = [
                    {"id": s.segment_id, "category_id": s.category_id, "iscrowd": int(s.iscrowd)}
                    | {"area": int((one.segment_ids == s.segment_id).sum())}
                    for s in one.segments
                ]
                pairs[-1].append({"file_name": name, "segments_info": infos, "image_id": index})
        by_id = {entry["id"]: entry for entry in categories.to_coco()}
        return by_id, panopticapi.pq_compute_single_core(0, pairs, folder, folder, by_id)


def assert_equals_reference(results, by_id, stat):
    for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
        try:
            average, _ = stat.pq_average(by_id, isthing)
        except ZeroDivisionError:
            average = None
        for name in ("PQ", "SQ", "RQ"):
            assert results[name + suffix] == (None if average is None else 100 * average[name.lower()])
    for category_id in by_id:
        one, expected = results["per_class"][str(category_id)], stat[category_id]
        assert (one["tp"], one["fp"], one["fn"]) == (expected.tp, expected.fp, expected.fn)
        if expected.tp:
            assert one["SQ"] == 100 * (expected.iou / expected.tp)


SEGMENT_IDS = st.sampled_from([1, 2, 3, 255, 256, 65536, MAX_SEGMENT_ID])


@st.composite
def segmentations(draw, shape, near=None):
    """A random map of up to 5 ids; `near`: an earlier one with some pixels changed."""
    palette = [0, *draw(st.lists(SEGMENT_IDS, min_size=1, max_size=5, unique=True))]
    ids = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from(palette)))
    categories = st.sampled_from([CAR, DOG, SKY])
    known = {}
    if near is not None and draw(st.booleans()):
        kept = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
        ids = np.where(kept, near.segment_ids, ids)
        known = {s.segment_id: s.category_id for s in near.segments}
    present = draw(st.permutations([i for i in np.unique(ids).tolist() if i]))
    segments = [
        Segment(i, known.get(i) or draw(categories), draw(st.booleans()), 0, iscrowd=draw(st.integers(0, 3)) == 0)
        for i in present
    ]
    return PanopticSegmentation(ids, tuple(segments))


@st.composite
def scored_images(draw):
    images = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6))
        truth = draw(segmentations(shape))
        images.append((truth, draw(segmentations(shape, near=truth))))
    return images


@needs_panopticapi
@settings(max_examples=150, deadline=None)
@given(scored_images())
def test_equals_panopticapi_on_random_maps(images):
    metric = PanopticQuality(CATEGORIES)
    for image_id, (truth, prediction) in enumerate(images):
        metric.update(image_id, truth, prediction)
    assert_equals_reference(metric.compute(), *reference(images))


def blobs(seed, images=12, side=64, segments=25):
    """Larger scenes, predictions shifted by a pixel or two: many matches, whose IoUs do not add exactly."""
    rng = np.random.default_rng(seed)
    for _ in range(images):
        ids = np.zeros((side, side), dtype=np.int32)
        for segment_id in range(1, segments):
            top, left, height, width = rng.integers([0, 0, 6, 6], [side, side, 30, 30])
            ids[top : top + height, left : left + width] = segment_id * 1000
        shifted = np.roll(ids, rng.integers(-2, 3, size=2), axis=(0, 1))
        yield tuple(
            PanopticSegmentation(
                one, tuple(Segment(i, (CAR, DOG, SKY, SEA)[i % 3], True, 0) for i in np.unique(one).tolist() if i)
            )
            for one in (ids, shifted)
        )


@needs_panopticapi
@pytest.mark.parametrize("seed", range(4))
def test_equals_panopticapi_to_the_last_bit_over_many_matches(seed):
    images = list(blobs(seed))
    metric = PanopticQuality(CATEGORIES)
    for image_id, (truth, prediction) in enumerate(images):
        metric.update(image_id, truth, prediction)
    results = metric.compute()
    assert sum(one["tp"] for one in results["per_class"].values()) > 100
    assert_equals_reference(results, *reference(images))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 11), st.booleans())
def test_merged_shards_in_any_order_equal_one_pass(order, cut, swap):
    images = dict(enumerate(blobs(seed=7)))
    shards = [PanopticQuality(CATEGORIES) for _ in range(3)]
    for image_id, pair in images.items():
        shards[0].update(image_id, *pair)
    for place, image_id in enumerate(order):
        shards[1 if place < cut else 2].update(image_id, *images[image_id])
    one_pass, left, right = shards
    merged, added = (right, left) if swap else (left, right)
    merged.merge(added)
    assert merged.compute() == one_pass.compute()
    assert merged.compute(image_order=order) == one_pass.compute(image_order=order)
