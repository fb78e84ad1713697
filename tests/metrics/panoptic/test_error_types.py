"""The error type of every wrong segment, on one-row maps drawn by hand and at random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.panoptic.error_types import ERROR_TYPES, NO_ERROR, NO_PAIR, classify_errors
from segkit.structures import PanopticSegmentation
from tests.helpers.drawn_overlaps import CAR, DOG, SEA, SKY, build_from_ids, build_table, row, scored_images


def classify(ground_truth, prediction, mode="reference"):
    """({ground truth segment_id: error type}, {predicted segment_id: error type}) of an image; ids are distinct."""
    errors = classify_errors(build_table((ground_truth, prediction), mode), mode)
    return name_types(errors.table.ground_truth, errors.gt_type), name_types(errors.table.prediction, errors.pred_type)


def name_types(segments, types):
    return {
        i: ERROR_TYPES[error_type]
        for i, error_type in zip(segments["segment_id"].tolist(), types.tolist(), strict=True)
        if error_type >= 0
    }


def test_a_perfect_image_has_no_error():
    image = row((CAR, 1, 3), (0, 0, 2), (SKY, 2, 4))
    assert classify(image, image) == ({}, {})


def test_wrong_class_is_an_iou_above_half_in_another_category():
    # 3 of 4 pixels: 0.75. 2 of 4: 0.5, no match in any category; half of it is not most of it on void: missed.
    ground_truth = row((CAR, 1, 4))
    assert classify(ground_truth, row((DOG, 5, 3), (0, 0, 1))) == ({1: "wrong_class"}, {5: "wrong_class"})
    assert classify(ground_truth, row((DOG, 5, 2), (0, 0, 2))) == ({1: "missed"}, {5: "false_positive"})


def test_wrong_class_leaves_predicted_pixels_on_void_out_of_the_union():
    # 4 / (10 + 4 - 4 - 6) = 1. With 6 of its 10 pixels on void the prediction does not count; the true segment does.
    ground_truth = row((CAR, 1, 4), (0, 0, 6))
    assert classify(ground_truth, row((DOG, 5, 10))) == ({1: "wrong_class"}, {})


def test_another_category_on_a_crowd_is_of_the_wrong_class():
    ground_truth = row((CAR, 1, 4), crowds=[1])
    assert classify(ground_truth, row((DOG, 5, 4))) == ({}, {5: "wrong_class"})


@pytest.mark.parametrize(
    ("shared", "true", "predicted"),
    [(5, "poor_mask", "poor_mask"), (2, "poor_mask", "poor_mask"), (1, "lost_to_void", "false_positive")],
)
def test_a_poor_mask_has_an_iou_above_a_tenth_and_at_most_half(shared, true, predicted):
    # IoU = shared / 10: 0.5 and 0.2 are poor, 0.1 is not; mostly void does not matter to the first.
    types_by_id = classify(row((CAR, 1, 10)), row((CAR, 5, shared), (0, 0, 10 - shared)))
    assert types_by_id == ({1: true}, {5: predicted})


def test_a_match_of_one_segment_is_no_poor_mask_of_another():
    # 5 matches 1 with 9 / (12 + 9 - 9) = 0.75 and has 3 / (12 + 6 - 3) = 0.2 with 2, not more than half of 2.
    ground_truth, prediction = row((CAR, 1, 9), (CAR, 2, 6)), row((CAR, 5, 12), (SKY, 6, 3))
    assert classify(ground_truth, prediction) == ({2: "missed"}, {6: "false_positive"})


def test_a_false_prediction_may_be_a_poor_mask_of_a_matched_segment():
    # 5 matches 1: 6 / 10. 6 has 4 of its 8 pixels on 1 (no part: not more than half): 4 / (8 + 10 - 4) = 0.29.
    ground_truth, prediction = row((CAR, 1, 10), (SKY, 2, 12)), row((CAR, 5, 6), (CAR, 6, 8), (SKY, 7, 8))
    assert classify(ground_truth, prediction) == ({}, {6: "poor_mask"})


def test_merged_are_ground_truth_segments_mostly_in_one_prediction():
    # 5 has 4, 3 and 3 of 4 pixels each: IoUs 4 / 10, 3 / 11, 3 / 11.
    ground_truth = row((CAR, 1, 4), (CAR, 2, 4), (CAR, 3, 4))
    prediction = row((CAR, 5, 7), (0, 0, 1), (CAR, 5, 3), (0, 0, 1))
    assert classify(ground_truth, prediction) == (dict.fromkeys((1, 2, 3), "merged"), {5: "merged"})
    # Half of segment 2 is not most of it: 5 has 4 / 6 with 1, a match, and 2 / 8 with 2.
    assert classify(row((CAR, 1, 4), (CAR, 2, 4)), row((CAR, 5, 6), (0, 0, 2))) == ({2: "missed"}, {})


def test_a_segment_covered_by_the_match_of_another_is_merged():
    # 5 matches 1 with 8 / 10 and holds all of 2.
    assert classify(row((CAR, 1, 8), (CAR, 2, 2)), row((CAR, 5, 10))) == ({2: "merged"}, {})
    # A dog in it is not: the category differs.
    assert classify(row((CAR, 1, 8), (DOG, 2, 2)), row((CAR, 5, 10))) == ({2: "missed"}, {})


def test_split_are_parts_that_match_together():
    ground_truth = row((CAR, 1, 10))
    # 4 + 4 of 10 pixels: 0.8 together.
    parts = row((CAR, 5, 4), (CAR, 6, 4), (0, 0, 2))
    assert classify(ground_truth, parts) == ({1: "split"}, {5: "split", 6: "split"})
    # 4 + 1: 0.5, no match. 5 alone is poor with 0.4, 6 has 0.1.
    parts = row((CAR, 5, 4), (CAR, 6, 1), (0, 0, 5))
    assert classify(ground_truth, parts) == ({1: "poor_mask"}, {5: "poor_mask", 6: "false_positive"})
    # 4 + 4, but 6 is a dog: 5 is alone.
    parts = row((CAR, 5, 4), (DOG, 6, 4), (0, 0, 2))
    assert classify(ground_truth, parts) == ({1: "poor_mask"}, {5: "poor_mask", 6: "false_positive"})


def test_a_surplus_part_of_a_matched_segment_is_split():
    assert classify(row((CAR, 1, 10)), row((CAR, 5, 6), (CAR, 6, 1), (0, 0, 3))) == ({}, {6: "split"})


def test_a_part_is_on_the_segment_with_most_of_its_pixels_outside_void():
    # 6: 4 pixels on 1, 4 on 2, 4 on void: not more than half of 8. With 3 on 2 it is a part: 4 of 7.
    ground_truth = row((CAR, 1, 9), (SKY, 2, 9), (0, 0, 4))
    half = row((CAR, 5, 5), (CAR, 6, 8), (SKY, 7, 5), (CAR, 6, 4))
    assert classify(ground_truth, half) == ({}, {6: "poor_mask"})  # 4 / (8 + 9 - 4) = 0.31
    most = row((CAR, 5, 5), (CAR, 6, 7), (SKY, 7, 6), (CAR, 6, 4))
    assert classify(ground_truth, most) == ({}, {6: "split"})


def test_wrong_class_comes_before_merged():
    # As the sky 5 would match 3 with 12 / 20; the cars in it are merged all the same.
    ground_truth = row((CAR, 1, 4), (CAR, 2, 4), (SKY, 3, 12))
    assert classify(ground_truth, row((CAR, 5, 20))) == (
        {1: "merged", 2: "merged", 3: "wrong_class"},
        {5: "wrong_class"},
    )


def test_split_comes_before_merged():
    # 5: 6 of 9 pixels on 1 and all of 2; with 6 it makes 10 / (10 + 3) = 0.77 of 1. 2 is merged: 5 has most of both.
    ground_truth, prediction = row((CAR, 1, 10), (CAR, 2, 3)), row((CAR, 6, 4), (CAR, 5, 9))
    assert classify(ground_truth, prediction) == ({1: "split", 2: "merged"}, {5: "split", 6: "split"})


@pytest.mark.parametrize(("void_px", "error_type"), [(3, "missed"), (4, "lost_to_void")])
def test_lost_to_void_is_more_than_half_without_a_prediction(void_px, error_type):
    prediction = row((DOG, 5, 6 - void_px), (0, 0, void_px), (DOG, 5, 6))
    assert classify(row((CAR, 1, 6), (DOG, 2, 6)), prediction) == ({1: error_type}, {})


def test_missed_and_false_positive_segments_have_no_overlap_of_their_category():
    ground_truth, prediction = row((SKY, 1, 20), (DOG, 2, 1)), row((SKY, 5, 18), (CAR, 6, 2), (SKY, 5, 1))
    assert classify(ground_truth, prediction) == ({2: "missed"}, {6: "false_positive"})


def test_crowds_and_ignored_predictions_have_no_type():
    ground_truth = row((CAR, 1, 6), (0, 0, 6), crowds=[1])
    assert classify(ground_truth, row((CAR, 5, 6), (SEA, 6, 6))) == ({}, {})


def test_the_pair_is_the_one_that_makes_the_type():
    # 5 merges 1 and 2, 4 / 16 each; it has 8 / 16 with the sky, which is no match in any category, yet its best pair.
    ground_truth = row((CAR, 1, 4), (CAR, 2, 4), (SKY, 3, 8), (0, 0, 4))
    errors = classify_errors(build_table((ground_truth, row((CAR, 5, 16), (0, 0, 4)))))
    pairs = errors.table.pairs[errors.gt_pair]
    assert [ERROR_TYPES[error_type] for error_type in errors.gt_type] == ["merged", "merged", "missed"]
    assert errors.table.prediction["segment_id"][pairs["prediction"]].tolist() == [5, 5, 5]
    assert errors.matching.iou[errors.gt_pair].tolist() == [4 / 16, 4 / 16, 8 / 16]
    assert errors.table.ground_truth["segment_id"][errors.table.pairs["ground_truth"][errors.pred_pair]].tolist() == [1]
    assert classify_errors(build_table((row((CAR, 1, 4)), row((0, 0, 4))))).gt_pair.tolist() == [NO_PAIR]


@pytest.mark.parametrize("rows", [[], [(0, 0, 5)]])
def test_maps_without_segments_have_no_errors(rows):
    errors = classify_errors(build_table({1: (row(*rows), row(*rows))} if rows else {}))
    assert (len(errors.gt_type), len(errors.pred_type)) == (0, 0)


def test_another_mode_is_rejected():
    with pytest.raises(ValueError, match="mode must be one of"):
        classify_errors(build_table({}), "strict")


@settings(max_examples=200, deadline=None)
@given(scored_images(), st.sampled_from(["reference", "corrected"]))
def test_every_segment_that_counts_against_pq_has_one_type(images, mode):
    errors = classify_errors(build_table(images, mode), mode)
    matching, table = errors.matching, errors.table
    assert ((errors.gt_type != NO_ERROR) == matching.missed).all()
    assert ((errors.pred_type != NO_ERROR) == matching.false_positive).all()
    assert not (errors.gt_type == ERROR_TYPES.index("false_positive")).any()
    assert not np.isin(errors.pred_type, [ERROR_TYPES.index("missed"), ERROR_TYPES.index("lost_to_void")]).any()
    for side, types, pairs in (
        ("ground_truth", errors.gt_type, errors.gt_pair),
        ("prediction", errors.pred_type, errors.pred_pair),
    ):
        named_pairs = pairs != NO_PAIR
        assert (table.pairs[side][pairs[named_pairs]] == np.flatnonzero(named_pairs)).all()
        assert (types[named_pairs] != NO_ERROR).all()
        assert (errors.matching.iou[pairs[types == ERROR_TYPES.index("wrong_class")]] > 0.5).all()


@settings(max_examples=200, deadline=None)
@given(scored_images(), st.permutations(range(1, 7)), st.permutations(range(1, 7)), st.randoms(use_true_random=False))
def test_error_types_do_not_depend_on_ids_or_order(images, gt_ids, pred_ids, random):
    errors = classify_errors(build_table(images, "corrected"), "corrected")
    renamed = {
        image_id: (rename(ground_truth, gt_ids, random), rename(prediction, pred_ids, random))
        for image_id, (ground_truth, prediction) in images.items()
    }
    shuffled = dict(sorted(renamed.items(), key=lambda _: random.random()))
    again = classify_errors(build_table(shuffled, "corrected"), "corrected")
    for side, new_ids in (("ground_truth", gt_ids), ("prediction", pred_ids)):
        expected = {(image, new_ids[i - 1]): error_type for (image, i), error_type in by_segment(errors, side).items()}
        assert by_segment(again, side) == expected


def rename(segmentation, new_ids, random):
    """The same map with other segment ids in another order."""
    ids = np.array([0, *new_ids], dtype=np.int32)[segmentation.segment_ids]
    category_ids = {new_ids[s.segment_id - 1]: s.category_id for s in segmentation.segments}
    crowds = [new_ids[s.segment_id - 1] for s in segmentation.segments if s.iscrowd]
    listed = random.sample(sorted(category_ids), len(category_ids))
    types_by_id = build_from_ids(ids[0], {i: category_ids[i] for i in listed}, crowds)
    return PanopticSegmentation(ids, types_by_id.segments)


def by_segment(errors, side):
    """(image_id, segment_id) -> error type."""
    segments = getattr(errors.table, side)
    images, types = {
        "ground_truth": (errors.table.gt_image, errors.gt_type),
        "prediction": (errors.table.pred_image, errors.pred_type),
    }[side]
    columns = images.tolist(), segments["segment_id"].tolist(), types.tolist()
    return {(errors.table.image_ids[image], i): error_type for image, i, error_type in zip(*columns, strict=True)}
