"""Panoptic quality on hand-drawn maps, and against panopticapi on drawn and random ones."""

import contextlib
import io
import json
import pickle
import random
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
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


# The corrected mode, boundaries, PQ-dagger, sizes and images against a slow, obvious version


def boundary_of(mask, distance_px):
    """Of mask_to_boundary in boundary-iou-api: what an erosion of the mask, padded by background, takes away."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=distance_px)
    return mask & (eroded[1:-1, 1:-1] == 0)


def iou_of(true_mask, predicted_mask, void):
    union = ((true_mask | predicted_mask) & ~(predicted_mask & void)).sum()
    return (true_mask & predicted_mask).sum() / union if union else 0.0


def obvious(images, mode="corrected", boundary=False):
    """{category_id: (sorted IoUs of matches, fp, fn)}, from masks of single segments."""
    ious, fp, fn = defaultdict(list), Counter(), Counter()
    for truth, prediction in images:
        true_ids, predicted_ids = truth.segment_ids, prediction.segment_ids
        void = true_ids == 0
        distance_px = max(1, round(0.02 * np.hypot(*true_ids.shape)))
        hiding = {}
        for segment in truth.segments:
            if segment.iscrowd:
                earlier = hiding.get(segment.category_id) if mode == "corrected" else None
                mask = true_ids == segment.segment_id
                hiding[segment.category_id] = mask if earlier is None else earlier | mask
        matched = set()
        for one in truth.segments:
            mask = true_ids == one.segment_id
            for other in prediction.segments:
                predicted = predicted_ids == other.segment_id
                if one.iscrowd or one.category_id != other.category_id or not (mask & predicted).any():
                    continue
                iou = iou_of(mask, predicted, void)
                if boundary:
                    bands = boundary_of(mask, distance_px), boundary_of(predicted, distance_px)
                    iou = min(iou, iou_of(*bands, void))
                if iou > 0.5:
                    ious[one.category_id].append(iou)
                    matched |= {(0, one.segment_id), (1, other.segment_id)}
        for segment in truth.segments:
            fn[segment.category_id] += not segment.iscrowd and (0, segment.segment_id) not in matched
        for segment in prediction.segments:
            mask = predicted_ids == segment.segment_id
            hidden = (mask & (void | hiding.get(segment.category_id, void))).sum()
            fp[segment.category_id] += (1, segment.segment_id) not in matched and not hidden > 0.5 * mask.sum()
    return {i: (sorted(ious[i]), fp[i], fn[i]) for i in NAMES}


def assert_equals_obvious(per_class, expected, prefix=""):
    for category_id, (ious, fp, fn) in expected.items():
        one = {name: per_class[str(category_id)][prefix + name] for name in ("PQ", "SQ", "RQ", "tp", "fp", "fn")}
        assert (one["tp"], one["fp"], one["fn"]) == (len(ious), fp, fn)
        size = len(ious) + 0.5 * fp + 0.5 * fn
        assert one["PQ"] == (None if not size else pytest.approx(100 * sum(ious) / size, abs=1e-9))
        assert one["RQ"] == (None if not size else 100 * (len(ious) / size))
        if ious:
            assert one["SQ"] == pytest.approx(100 * sum(ious) / len(ious), abs=1e-9)


def computed(images, **options):
    metric = PanopticQuality(CATEGORIES, **options)
    for image_id, pair in images:
        metric.update(image_id, *pair)
    return metric


@settings(max_examples=100, deadline=None)
@given(scored_images(), st.sampled_from(["reference", "corrected"]))
def test_equals_the_obvious_version_on_random_maps(images, mode):
    results = computed(enumerate(images), mode=mode, boundary=True).compute()
    assert_equals_obvious(results["per_class"], obvious(images, mode))
    assert_equals_obvious(results["per_class"], obvious(images, mode, boundary=True), "Boundary")


def test_boundary_pq_equals_the_obvious_version_on_large_maps():
    # 64 x 64: two pixels wide; most segments have an inside.
    images = [pair for seed in range(3) for pair in blobs(seed, images=4)]
    for mode in ("reference", "corrected"):
        results = computed(enumerate(images), mode=mode, boundary=True).compute()
        expected = obvious(images, mode, boundary=True)
        assert_equals_obvious(results["per_class"], expected, "Boundary")
        assert sum(len(ious) for ious, _, _ in expected.values()) > 20
        assert results["BoundaryPQ"] < results["PQ"]
        present = [results["per_class"][str(i)]["BoundaryPQ"] for i in (CAR, DOG)]
        assert results["BoundaryPQ_th"] == pytest.approx(sum(present) / 2)


@settings(max_examples=40, deadline=None)
@given(scored_images(), st.randoms(use_true_random=False))
def test_no_order_changes_anything(images, rng):
    """Images, segments and categories permuted, ids renamed: corrected to the last bit, reference but for rounding."""
    shuffled = [(image_id, relabelled(pair, rng)) for image_id, pair in enumerate(images)]
    rng.shuffle(shuffled)
    for image_order in (None, [image_id for image_id, _ in shuffled]):
        options = {"mode": "corrected", "boundary": True, "dagger": True}
        one, other = (computed(some, **options) for some in (enumerate(images), shuffled))
        assert without_other_mode(one.compute()) == without_other_mode(other.compute(image_order))
    single = [pair for pair in images if not several_crowds(pair[0])]
    renamed = [(image_id, relabelled(pair, rng)) for image_id, pair in enumerate(single)]
    results = [computed(some).compute()["per_class"] for some in (enumerate(single), renamed[::-1])]
    assert [[one[name] for one in side.values() for name in ("tp", "fp", "fn")] for side in results] == [
        [one[name] for one in results[0].values() for name in ("tp", "fp", "fn")]
    ] * 2


def without_other_mode(results):
    """All but the reference's averages, whose last bits orders may move."""
    return {name: value for name, value in results.items() if name != "other_mode"}


def several_crowds(truth):
    crowds = [segment.category_id for segment in truth.segments if segment.iscrowd]
    return len(set(crowds)) < len(crowds)


def relabelled(pair, rng):
    """The same maps with other segment ids, listed in another order."""
    sides = []
    for one in pair:
        others = rng.sample(range(1, 60), len(one.segments))
        renamed = dict(zip((s.segment_id for s in one.segments), others, strict=True))
        ids = np.vectorize(lambda i, renamed=renamed: renamed.get(i, 0), otypes=[np.int32])(one.segment_ids)
        segments = [replace(s, segment_id=renamed[s.segment_id]) for s in one.segments]
        rng.shuffle(segments)
        sides.append(PanopticSegmentation(ids, tuple(segments)))
    return tuple(sides)


def test_corrected_hides_on_all_crowds_and_says_where_the_modes_differ():
    truth = panoptic([[1, 1, 2, 2, 7, 7]], crowds=[1, 2], s1=CAR, s2=CAR, s7=SKY)
    prediction = panoptic([[3, 3, 4, 4, 7, 7]], s3=CAR, s4=CAR, s7=SKY)
    images = [("b", (truth, prediction)), ("a", (ONE, ONE))]
    reference_, corrected = (computed(images, mode=mode).compute() for mode in ("reference", "corrected"))
    # 3 lies on the crowd listed first: fp in the reference, dropped when corrected. PQ of car: 1 / 1.5 and 1.
    assert counts(reference_, CAR) == (1, 1, 0)
    assert counts(corrected, CAR) == (1, 0, 0)
    because = ["1 image has ('b') several crowds of one category"]
    other = {"mode": "corrected", "because": because} | {
        n + s: 100.0 for n in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")
    }
    assert reference_["other_mode"] == other
    assert (corrected["other_mode"]["mode"], corrected["other_mode"]["because"]) == ("reference", because)
    assert corrected["other_mode"]["PQ_th"] == reference_["PQ_th"] == pytest.approx(200 / 3)
    assert "other_mode" not in computed(images[1:]).compute()


def test_pq_dagger_by_hand():
    # Stuff by the IoU of every true segment, matched or not: sky 1/4 (no match) in one image, 1 in the other: 0.625.
    # The sea is true only, 0; predicted stuff that is not true does not count. Things: PQ, car 1.
    images = [
        (1, (panoptic([[1, 9, 9, 9, 9, 8]], s1=CAR, s9=SKY, s8=SEA), panoptic([[1, 9, 0, 0, 0, 0]], s1=CAR, s9=SKY))),
        (2, (panoptic([[9, 9]], s9=SKY), panoptic([[9, 9]], s9=SKY))),
    ]
    results = computed(images, dagger=True).compute()
    assert [results["per_class"][str(i)]["PQ_dagger"] for i in NAMES] == [100.0, None, 62.5, 0.0]
    assert results["PQ_dagger"] == pytest.approx((100 + 62.5 + 0) / 3)
    assert results["PQ_dagger_st"] == 31.25
    assert counts(results, SKY) == (1, 1, 1)
    predicted_only = computed([(1, (ONE, panoptic([[1, 9]], s1=CAR, s9=SKY)))], dagger=True).compute()
    assert predicted_only["per_class"][str(SKY)]["PQ_dagger"] is None
    assert "PQ_dagger" not in computed(images).compute()


def test_pq_of_sizes_by_hand():
    # Rows of 128 pixels. 1: 7 rows, 896 px, small. 2: 8 rows, 1024 px, medium. 3: 72 rows, 9216 px, large.
    ids = np.repeat([1, 2, 3], [7, 8, 72]).astype(np.int32)[:, None].repeat(128, axis=1)
    truth = panoptic(ids, s1=CAR, s2=CAR, s3=CAR)
    predicted = ids.copy()
    predicted[:1] = 0  # 6 of 7 rows of the small one
    predicted[7:15] = 4  # the medium one is predicted as a dog: false and missed, both medium
    prediction = panoptic(predicted, s1=CAR, s4=DOG, s3=CAR)
    results = computed([(1, (truth, prediction))]).compute()
    small, medium, large = (results["by_size"][size] for size in ("small", "medium", "large"))
    assert small["PQ"] == results["PQs"] == pytest.approx(600 / 7)
    assert (small["RQ"], small["PQ_st"]) == (100.0, None)
    assert (medium["PQ"], results["PQm"], medium["SQ"]) == (0.0, 0.0, 0.0)
    assert (large["PQ"], results["PQl"]) == (100.0, 100.0)


def test_numbers_of_each_image_by_hand():
    empty = panoptic([[0, 0]])
    images = [("b", (TRUTH, PREDICTION)), (7, (ONE, empty)), (3, (empty, empty))]
    metric = computed(images)
    each = metric.per_image()
    assert list(each) == [3, 7, "b"]
    assert each[3] == {"PQ": None, "SQ": None, "RQ": None, "tp": 0, "fp": 0, "fn": 0}
    assert each[7] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 0, "fn": 1}
    # As in test_drawn_scene: car 70, sky 500 / 6.
    quality = {"PQ": pytest.approx((70 + 500 / 6) / 2), "SQ": pytest.approx((87.5 + 500 / 6) / 2), "RQ": 90.0}
    assert each["b"] == {**quality, "tp": 3, "fp": 1, "fn": 0}
    assert list(metric.per_image(["b", 3, 7])) == ["b", 3, 7]


# What is saved


OPTIONS = [
    {},
    {"mode": "corrected", "dagger": True},
    {"areas": "trust", "boundary": True, "boundary_ratio": 0.1},
]


def declared(truth, factor):
    """The segmentation with areas of `factor` times the map's."""
    areas = {segment.segment_id: int((truth.segment_ids == segment.segment_id).sum()) for segment in truth.segments}
    segments = (replace(segment, area_px=factor * areas[segment.segment_id]) for segment in truth.segments)
    return PanopticSegmentation(truth.segment_ids, tuple(segments))


@pytest.mark.parametrize("options", OPTIONS)
def test_saved_counts_give_the_same_numbers(tmp_path, options):
    pairs = {**dict(enumerate(blobs(seed=3, images=4))), "x": (panoptic([[0]]), panoptic([[0]]))}
    images = [(image_id, (declared(truth, 1.25), prediction)) for image_id, (truth, prediction) in pairs.items()]
    random.Random(1).shuffle(images)
    metric = computed(images, **options)
    header, arrays = metric.state()
    np.savez(tmp_path / "counts.npz", **arrays)
    with np.load(tmp_path / "counts.npz", allow_pickle=False) as loaded:
        saved = PanopticQuality.from_state(json.loads(json.dumps(header)), loaded)
    assert saved.compute() == metric.compute()
    assert saved.per_image() == metric.per_image()
    order = [image_id for image_id, _ in images]
    assert saved.compute(order) == metric.compute(order)
    again = computed([("y", (ONE, ONE))], **options)
    again.merge(saved)
    assert len(again) == len(metric) + 1


def test_declared_areas_are_worth_what_the_option_says():
    truth = declared(ONE, 2)
    # The car has 2 pixels, 4 are declared: 2 / (2 + 4 - 2) = 0.5 is no match.
    assert counts(computed([(1, (truth, ONE))], areas="trust").compute(), CAR) == (0, 1, 1)
    assert counts(computed([(1, (truth, ONE))]).compute(), CAR) == (1, 0, 0)
    with pytest.raises(DatasetError, match="image 1, truth, segment 1: the declared area is 4, the map has 2 pixels"):
        computed([(1, (truth, ONE))], areas="check")


def test_the_order_of_the_categories_is_saved():
    listed = CategorySet([CATEGORIES[i] for i in (SKY, DOG, SEA, CAR)])
    header, arrays = PanopticQuality(listed).state()
    assert PanopticQuality.from_state(header, arrays).categories.listed_ids == (SKY, DOG, SEA, CAR)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header, arrays: header.pop("options"),
        lambda header, arrays: header["options"].update(strange=1),
        lambda header, arrays: header["options"].update(mode="strict"),
        lambda header, arrays: header.update(categories=[{"name": "x"}]),
        lambda header, arrays: header["image_ids"].append(9),
        lambda header, arrays: header.update(image_ids=[1, 1]),
        lambda header, arrays: arrays.pop("pairs"),
        lambda header, arrays: arrays.update(truth=np.zeros(3)),
        lambda header, arrays: arrays.update(truth_per_image=np.array([1, 1])),
        lambda header, arrays: arrays.update(truth=arrays["truth"][:-1]),
    ],
)
def test_other_counts_are_refused(spoil):
    header, arrays = computed([(1, (TRUTH, PREDICTION)), (2, (ONE, ONE))]).state()
    spoil(header, arrays)
    with pytest.raises(DatasetError):
        PanopticQuality.from_state(header, arrays)


@pytest.mark.parametrize("options", [{"mode": "corrected"}, {"areas": "check"}, {"dagger": True}, {"boundary": True}])
def test_other_options_are_not_merged(options):
    with pytest.raises(ValueError, match="same categories and options"):
        PanopticQuality(CATEGORIES).merge(PanopticQuality(CATEGORIES, **options))


@pytest.mark.parametrize(
    "option", [{"mode": "strict"}, {"areas": "guess"}, {"boundary_ratio": 0}, {"boundary_ratio": 1}]
)
def test_options_that_are_none(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name} must be"):
        PanopticQuality(CATEGORIES, **option)
