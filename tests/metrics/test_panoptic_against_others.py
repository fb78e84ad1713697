"""Panoptic quality on random maps: comparison with panopticapi and with a slow simple version."""

from collections import Counter, defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics import PanopticQuality
from segkit.structures import PanopticSegmentation
from tests.helpers.panoptic_scenes import (
    CAR,
    CATEGORIES,
    DOG,
    GROUND_TRUTH,
    NAMES,
    ONE,
    PREDICTION,
    SEA,
    SKY,
    assert_equals_reference,
    blobs,
    computed,
    counts,
    needs_panopticapi,
    panoptic,
    reference,
    scored_images,
)


@needs_panopticapi
@settings(max_examples=150, deadline=None)
@given(scored_images())
def test_equals_panopticapi_on_random_maps(images):
    metric = PanopticQuality(CATEGORIES)
    for image_id, (ground_truth, prediction) in enumerate(images):
        metric.update(image_id, ground_truth, prediction)
    assert_equals_reference(metric.compute(), *reference(images))


@needs_panopticapi
@pytest.mark.parametrize("seed", range(4))
def test_equals_panopticapi_to_the_last_bit_over_many_matches(seed):
    images = list(blobs(seed))
    metric = PanopticQuality(CATEGORIES)
    for image_id, (ground_truth, prediction) in enumerate(images):
        metric.update(image_id, ground_truth, prediction)
    results = metric.compute()
    assert sum(row["tp"] for row in results["per_class"].values()) > 100
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


# The corrected mode, boundaries, PQ-dagger, sizes and images against a slow simple version


def compute_boundary(mask, distance_px):
    """The pixels that an erosion of the background-padded mask removes, as mask_to_boundary in boundary-iou-api."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=distance_px)
    return mask & (eroded[1:-1, 1:-1] == 0)


def compute_iou(gt_mask, predicted_mask, void):
    union = ((gt_mask | predicted_mask) & ~(predicted_mask & void)).sum()
    return (gt_mask & predicted_mask).sum() / union if union else 0.0


def slow_panoptic_quality(images, mode="corrected", boundary=False):
    """{category_id: (sorted IoUs of matches, fp, fn)}, from masks of single segments."""
    ious, fp, fn = defaultdict(list), Counter(), Counter()
    for ground_truth, prediction in images:
        gt_ids, pred_ids = ground_truth.segment_ids, prediction.segment_ids
        void = gt_ids == 0
        distance_px = max(1, round(0.02 * np.hypot(*gt_ids.shape)))
        hiding = {}
        for segment in ground_truth.segments:
            if segment.iscrowd:
                earlier = hiding.get(segment.category_id) if mode == "corrected" else None
                mask = gt_ids == segment.segment_id
                hiding[segment.category_id] = mask if earlier is None else earlier | mask
        matched = set()
        for row in ground_truth.segments:
            mask = gt_ids == row.segment_id
            for other in prediction.segments:
                predicted = pred_ids == other.segment_id
                if row.iscrowd or row.category_id != other.category_id or not (mask & predicted).any():
                    continue
                iou = compute_iou(mask, predicted, void)
                if boundary:
                    bands = compute_boundary(mask, distance_px), compute_boundary(predicted, distance_px)
                    iou = min(iou, compute_iou(*bands, void))
                if iou > 0.5:
                    ious[row.category_id].append(iou)
                    matched |= {(0, row.segment_id), (1, other.segment_id)}
        for segment in ground_truth.segments:
            fn[segment.category_id] += not segment.iscrowd and (0, segment.segment_id) not in matched
        for segment in prediction.segments:
            mask = pred_ids == segment.segment_id
            hidden = (mask & (void | hiding.get(segment.category_id, void))).sum()
            fp[segment.category_id] += (1, segment.segment_id) not in matched and not hidden > 0.5 * mask.sum()
    return {i: (sorted(ious[i]), fp[i], fn[i]) for i in NAMES}


def assert_equals_slow_version(per_class, expected, prefix=""):
    for category_id, (ious, fp, fn) in expected.items():
        row = {name: per_class[str(category_id)][prefix + name] for name in ("PQ", "SQ", "RQ", "tp", "fp", "fn")}
        assert (row["tp"], row["fp"], row["fn"]) == (len(ious), fp, fn)
        size = len(ious) + 0.5 * fp + 0.5 * fn
        assert row["PQ"] == (None if not size else pytest.approx(100 * sum(ious) / size, abs=1e-9))
        assert row["RQ"] == (None if not size else 100 * (len(ious) / size))
        if ious:
            assert row["SQ"] == pytest.approx(100 * sum(ious) / len(ious), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(scored_images(), st.sampled_from(["reference", "corrected"]))
def test_equals_a_slow_simple_version_on_random_maps(images, mode):
    results = computed(enumerate(images), mode=mode, boundary=True).compute()
    assert_equals_slow_version(results["per_class"], slow_panoptic_quality(images, mode))
    assert_equals_slow_version(results["per_class"], slow_panoptic_quality(images, mode, boundary=True), "Boundary")


def test_boundary_pq_equals_a_slow_simple_version_on_large_maps():
    # 64 x 64: two pixels wide; most segments have an inside.
    images = [pair for seed in range(3) for pair in blobs(seed, images=4)]
    for mode in ("reference", "corrected"):
        results = computed(enumerate(images), mode=mode, boundary=True).compute()
        expected = slow_panoptic_quality(images, mode, boundary=True)
        assert_equals_slow_version(results["per_class"], expected, "Boundary")
        assert sum(len(ious) for ious, _, _ in expected.values()) > 20
        assert results["BoundaryPQ"] < results["PQ"]
        present = [results["per_class"][str(i)]["BoundaryPQ"] for i in (CAR, DOG)]
        assert results["BoundaryPQ_th"] == pytest.approx(sum(present) / 2)


@settings(max_examples=40, deadline=None)
@given(scored_images(), st.randoms(use_true_random=False))
def test_no_order_changes_anything(images, rng):
    """Images, segments and categories permuted, ids renamed: corrected is bit-equal, reference equal up to rounding."""
    shuffled = [(image_id, relabelled(pair, rng)) for image_id, pair in enumerate(images)]
    rng.shuffle(shuffled)
    for image_order in (None, [image_id for image_id, _ in shuffled]):
        options = {"mode": "corrected", "boundary": True, "dagger": True}
        row, other = (computed(some, **options) for some in (enumerate(images), shuffled))
        assert without_other_mode(row.compute()) == without_other_mode(other.compute(image_order))
    single = [pair for pair in images if not several_crowds(pair[0])]
    renamed = [(image_id, relabelled(pair, rng)) for image_id, pair in enumerate(single)]
    results = [computed(some).compute()["per_class"] for some in (enumerate(single), renamed[::-1])]
    assert [[row[name] for row in side.values() for name in ("tp", "fp", "fn")] for side in results] == [
        [row[name] for row in results[0].values() for name in ("tp", "fp", "fn")]
    ] * 2


def without_other_mode(results):
    """All results except the reference mode's averages, whose last bits depend on the order."""
    return {name: value for name, value in results.items() if name != "other_mode"}


def several_crowds(ground_truth):
    crowds = [segment.category_id for segment in ground_truth.segments if segment.iscrowd]
    return len(set(crowds)) < len(crowds)


def relabelled(pair, rng):
    """The same maps with other segment ids, listed in another order."""
    sides = []
    for row in pair:
        other_ids = rng.sample(range(1, 60), len(row.segments))
        renamed = dict(zip((s.segment_id for s in row.segments), other_ids, strict=True))
        ids = np.vectorize(lambda i, renamed=renamed: renamed.get(i, 0), otypes=[np.int32])(row.segment_ids)
        segments = [replace(s, segment_id=renamed[s.segment_id]) for s in row.segments]
        rng.shuffle(segments)
        sides.append(PanopticSegmentation(ids, tuple(segments)))
    return tuple(sides)


def test_corrected_ignores_predictions_on_all_crowds_and_reports_different_modes():
    ground_truth = panoptic([[1, 1, 2, 2, 7, 7]], crowds=[1, 2], s1=CAR, s2=CAR, s7=SKY)
    prediction = panoptic([[3, 3, 4, 4, 7, 7]], s3=CAR, s4=CAR, s7=SKY)
    images = [("b", (ground_truth, prediction)), ("a", (ONE, ONE))]
    reference_, corrected = (computed(images, mode=mode).compute() for mode in ("reference", "corrected"))
    # 3 is on the crowd listed first: fp in the reference, dropped when corrected. PQ of car: 1 / 1.5 and 1.
    assert counts(reference_, CAR) == (1, 1, 0)
    assert counts(corrected, CAR) == (1, 0, 0)
    reasons = ["1 image has ('b') several crowds of one category"]
    other = {"mode": "corrected", "reasons": reasons} | {
        n + s: 100.0 for n in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")
    }
    assert reference_["other_mode"] == other
    assert (corrected["other_mode"]["mode"], corrected["other_mode"]["reasons"]) == ("reference", reasons)
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
    ground_truth = panoptic(ids, s1=CAR, s2=CAR, s3=CAR)
    predicted = ids.copy()
    predicted[:1] = 0  # 6 of 7 rows of the small one
    predicted[7:15] = 4  # the medium one is predicted as a dog: false and missed, both medium
    prediction = panoptic(predicted, s1=CAR, s4=DOG, s3=CAR)
    results = computed([(1, (ground_truth, prediction))]).compute()
    small, medium, large = (results["by_size"][size] for size in ("small", "medium", "large"))
    assert small["PQ"] == results["PQs"] == pytest.approx(600 / 7)
    assert (small["RQ"], small["PQ_st"]) == (100.0, None)
    assert (medium["PQ"], results["PQm"], medium["SQ"]) == (0.0, 0.0, 0.0)
    assert (large["PQ"], results["PQl"]) == (100.0, 100.0)


def test_metrics_of_each_image_by_hand():
    empty = panoptic([[0, 0]])
    images = [("b", (GROUND_TRUTH, PREDICTION)), (7, (ONE, empty)), (3, (empty, empty))]
    metric = computed(images)
    each = metric.per_image()
    assert list(each) == [3, 7, "b"]
    assert each[3] == {"PQ": None, "SQ": None, "RQ": None, "tp": 0, "fp": 0, "fn": 0}
    assert each[7] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 0, "fn": 1}
    # As in test_drawn_scene: car 70, sky 500 / 6.
    quality = {"PQ": pytest.approx((70 + 500 / 6) / 2), "SQ": pytest.approx((87.5 + 500 / 6) / 2), "RQ": 90.0}
    assert each["b"] == {**quality, "tp": 3, "fp": 1, "fn": 0}
    assert list(metric.per_image(["b", 3, 7])) == ["b", 3, 7]
