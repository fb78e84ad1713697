"""Tables of segments and overlaps: literal maps, and comparison with counting pixel by pixel."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.panoptic.overlaps import ON_VOID, compute_overlaps, join
from segkit.structures import Category, CategorySet, IdRuns, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError

CAR, SKY = 1, 90
CATEGORIES = CategorySet([Category(CAR, "car", True, (0, 0, 0)), Category(SKY, "sky", False, (0, 0, 0))])


def panoptic(rows, *segments):
    """segments: pairs (segment_id, category_id) or objects of type Segment."""
    built = [segment if isinstance(segment, Segment) else Segment(*segment, True, 0) for segment in segments]
    return PanopticSegmentation(np.array(rows, dtype=np.int32), tuple(built))


def as_runs(segmentation):
    return PanopticSegmentation.from_runs(IdRuns.from_map(segmentation.segment_ids), segmentation.segments)


GROUND_TRUTH = panoptic([[7, 7, 2], [0, 2, 2]], (7, CAR), (2, SKY))
PREDICTION = panoptic([[5, 5, 5], [5, 0, 9]], (9, CAR), (5, SKY))


def test_drawn_maps():
    overlaps = compute_overlaps(GROUND_TRUTH, PREDICTION, CATEGORIES)
    assert overlaps.ground_truth[["segment_id", "category_id", "counted_px"]].tolist() == [(7, CAR, 2), (2, SKY, 3)]
    assert overlaps.prediction[["segment_id", "category_id", "counted_px"]].tolist() == [(9, CAR, 1), (5, SKY, 4)]
    assert overlaps.ground_truth["area_px"].tolist() == [2.0, 3.0]
    # By (true, predicted) id: void and 5, 2 and void, 2 and 5, 2 and 9, 7 and 5; rows count in the order listed.
    pairs = [(ON_VOID, 1, 1), (1, ON_VOID, 1), (1, 1, 1), (1, 0, 1), (0, 1, 2)]
    assert overlaps.pairs[["ground_truth", "prediction", "pixels"]].tolist() == pairs
    assert set(overlaps.pairs["boundary_px"].tolist()) == {0}


def assert_same(segment, other):
    for name in ("ground_truth", "prediction", "pairs"):
        np.testing.assert_array_equal(getattr(segment, name), getattr(other, name))


IDS = st.sampled_from([0, 1, 2, 300, 2**24 - 1])


@settings(deadline=None, max_examples=60)
@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6))
def test_equals_counting_pixel_by_pixel(data, shape):
    maps = [data.draw(hnp.arrays(np.int32, shape, elements=IDS)) for _ in range(2)]
    sides = []
    for ids in maps:
        present = data.draw(st.permutations([i for i in np.unique(ids).tolist() if i]))
        segments = [Segment(i, data.draw(st.sampled_from([CAR, SKY])), True, 0) for i in present]
        sides.append(PanopticSegmentation(ids, tuple(segments)))
    overlaps = compute_overlaps(*sides, CATEGORIES, boundary_ratio=0.1)
    counted = Counter(zip(*(ids.ravel().tolist() for ids in maps), strict=True))
    del counted[0, 0]
    gt_ids, pred_ids = (np.append([s.segment_id for s in side.segments], 0).astype(int) for side in sides)
    pairs = zip(gt_ids[overlaps.pairs["ground_truth"]], pred_ids[overlaps.pairs["prediction"]], strict=True)
    assert dict(zip(pairs, overlaps.pairs["pixels"].tolist(), strict=True)) == counted
    for rows, ids in zip((overlaps.ground_truth, overlaps.prediction), maps, strict=True):
        assert rows["counted_px"].tolist() == [int((ids == i).sum()) for i in rows["segment_id"]]
    # Maps and runs, and one of each, give the same tables.
    runs = [as_runs(side) for side in sides]
    for mixed in (runs, (runs[0], sides[1]), (sides[0], runs[1])):
        assert_same(compute_overlaps(*mixed, CATEGORIES, boundary_ratio=0.1), overlaps)


def test_declared_areas():
    declared = panoptic(GROUND_TRUTH.segment_ids, Segment(7, CAR, True, 2), Segment(2, SKY, False, 40.5))
    assert compute_overlaps(declared, PREDICTION, CATEGORIES, areas="trust").ground_truth["area_px"].tolist() == [
        2.0,
        40.5,
    ]
    assert compute_overlaps(declared, PREDICTION, CATEGORIES, areas="recount").ground_truth["area_px"].tolist() == [
        2.0,
        3.0,
    ]
    with pytest.raises(
        DatasetError, match=r"^image 4, ground truth, segment 2: the declared area is 40\.5, the map has 3 pix"
    ):
        compute_overlaps(declared, PREDICTION, CATEGORIES, areas="check", where="image 4")
    with pytest.raises(DatasetError, match=r"segment 7: .* is 0, .* 2 pixels \(and 1 more segments of this image\);"):
        compute_overlaps(GROUND_TRUTH, PREDICTION, CATEGORIES, areas="check")
    right = panoptic(GROUND_TRUTH.segment_ids, Segment(7, CAR, True, 2), Segment(2, SKY, False, 3))
    assert_same(
        compute_overlaps(right, PREDICTION, CATEGORIES, areas="check"),
        compute_overlaps(GROUND_TRUTH, PREDICTION, CATEGORIES),
    )
    with pytest.raises(ValueError, match="areas must be one of"):
        compute_overlaps(GROUND_TRUTH, PREDICTION, CATEGORIES, areas="guess")


INVALID_MAPS = [
    (panoptic([[1, 1, 1]] * 2, (1, CAR), (1, CAR)), "segment 1: expected every segment once"),
    (panoptic([[1, 1, 0]] * 2, (1, CAR), (0, CAR)), r"segment 0: expected a segment id in \[1, 16777215\]"),
    (panoptic([[1, 1, 2**24]] * 2, (1, CAR), (2**24, CAR)), "segment 16777216: expected a segment id in"),
    (panoptic([[1, 1, 1]] * 2, (1, 5)), r"segment 1: expected a category_id out of \[1, 90\], got 5"),
    (panoptic([[1, 1, 1]] * 2, (1, CAR), (2, CAR)), "segment 2: expected pixels with this id in the map, got none"),
    (panoptic([[1, 1, 3]] * 2, (1, CAR)), "segment 3: expected a segment for every id of the map, got 2 pixels"),
    (panoptic([[1, 1, -3]] * 2, (1, CAR)), "segment -3: expected a segment for every id of the map, got 2 pixels"),
]


@pytest.mark.parametrize(("wrong", "message"), INVALID_MAPS)
def test_contradictions_name_the_side_and_the_segment(wrong, message):
    places = {"where": "image 4", "gt_where": "t.png", "pred_where": "p.png"}
    for spoiled in (wrong, as_runs(wrong)):
        with pytest.raises(DatasetError, match=f"^t.png, {message}"):
            compute_overlaps(spoiled, as_runs(PREDICTION), CATEGORIES, **places)
        with pytest.raises(DatasetError, match=f"^p.png, {message}"):
            compute_overlaps(GROUND_TRUTH, spoiled, CATEGORIES, **places)
        with pytest.raises(DatasetError, match=f"^image 4, prediction, {message}"):
            compute_overlaps(GROUND_TRUTH, spoiled, CATEGORIES, where="image 4")


def test_ids_beyond_int32_are_reported_as_they_are():
    wide = PanopticSegmentation(np.array([[7, 7, 2], [0, 2, 2**32 + 2]]), GROUND_TRUTH.segments)
    for ground_truth in (GROUND_TRUTH, as_runs(GROUND_TRUTH)):
        with pytest.raises(DatasetError, match="segment 4294967298: expected a segment for every id"):
            compute_overlaps(
                ground_truth,
                replace(PREDICTION, segment_ids=wide.segment_ids, segments=GROUND_TRUTH.segments),
                CATEGORIES,
            )


def test_sizes_that_differ():
    small = panoptic([[5, 5], [5, 9]], *PREDICTION.segments)
    for prediction in (small, as_runs(small)):
        for ground_truth in (GROUND_TRUTH, as_runs(GROUND_TRUTH)):
            with pytest.raises(DatasetError, match=r"^image 4: .* got 2 x 3 and 2 x 2; bring the prediction"):
                compute_overlaps(ground_truth, prediction, CATEGORIES, where="image 4")


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (3, 0)])
def test_void_and_empty_maps_have_no_rows(shape):
    nothing = panoptic(np.zeros(shape))
    overlaps = compute_overlaps(nothing, as_runs(nothing), CATEGORIES, areas="check", boundary_ratio=0.5)
    assert [len(overlaps.ground_truth), len(overlaps.prediction), len(overlaps.pairs)] == [0, 0, 0]


def test_boundaries_of_drawn_maps():
    # Boundaries are one pixel wide. True: a square of 3 x 3 on void, on its boundary but for its centre. Predicted:
    # the three upper rows, on their boundary but for the middle one's inner three.
    ground_truth = np.zeros((5, 5), dtype=np.int32)
    ground_truth[1:4, 1:4] = 1
    prediction = np.zeros((5, 5), dtype=np.int32)
    prediction[:3] = 2
    overlaps = compute_overlaps(
        panoptic(ground_truth, (1, CAR)), panoptic(prediction, (2, CAR)), CATEGORIES, boundary_ratio=0.02
    )
    assert (overlaps.ground_truth["boundary_px"].tolist(), overlaps.prediction["boundary_px"].tolist()) == ([8], [12])
    # 2 on void: 15 - 6 pixels, all on its boundary. 1 and 2 meet in two rows of three: the upper is inside 2; of the
    # lower the centre is inside 1, and its two neighbours are on both boundaries. 1 meets void on boundaries of both.
    columns = overlaps.pairs[["ground_truth", "prediction", "pixels", "boundary_px"]].tolist()
    assert columns == [(ON_VOID, 0, 9, 9), (0, ON_VOID, 3, 3), (0, 0, 6, 2)]


def test_join_points_into_the_joined_tables():
    segment = compute_overlaps(GROUND_TRUTH, PREDICTION, CATEGORIES)
    none = compute_overlaps(panoptic(np.zeros((1, 1))), panoptic(np.zeros((1, 1))), CATEGORIES)
    table = join([("a", segment), (3, none), ("b", segment)])
    assert table.image_ids == ("a", 3, "b")
    assert table.gt_image.tolist() == table.pred_image.tolist() == [0, 0, 2, 2]
    assert table.pair_image.tolist() == [0] * 5 + [2] * 5
    assert table.ground_truth["segment_id"].tolist() == [7, 2, 7, 2]
    ground_truth, prediction = table.pairs["ground_truth"].tolist(), table.pairs["prediction"].tolist()
    assert ground_truth == [ON_VOID, 1, 1, 1, 0, ON_VOID, 3, 3, 3, 2]
    assert prediction == [1, ON_VOID, 1, 0, 1, 3, ON_VOID, 3, 2, 3]
    assert [len(rows) for rows in (join([]).ground_truth, join([]).pairs)] == [0, 0]
