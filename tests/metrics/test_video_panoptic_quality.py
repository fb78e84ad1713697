"""Video panoptic quality on hand-drawn clips, against a slow plain version, and as saved counts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings

from segkit.metrics import PanopticQuality, VideoPanopticQuality
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import DatasetError
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, DOG, SKY, panoptic, videos


def vpq(ground_truth, prediction, **options):
    metric = VideoPanopticQuality(CATEGORIES, **options)
    metric.update("clip", ground_truth, prediction)
    return metric.compute()


CARS = [panoptic([[1, 1, 1, 1]], s1=CAR)] * 4


def test_an_id_switch_costs_more_in_longer_windows():
    prediction = [panoptic([[5] * 4], s5=CAR)] * 2 + [panoptic([[6] * 4], s6=CAR)] * 2
    results = vpq(CARS, prediction)
    # 1 frame: 4 matches. 2 frames: windows 01 and 23 match; in 12 either id has IoU 4 / 8, no match: 2 fp, 1 fn.
    # 2 / (2 + 0.5 * 3). 3 frames: 012 has 5 with IoU 8 / 12 and 6 as fp, 123 the same: (4 / 3) / (2 + 0.5 * 2).
    # 4 frames: 8 / 16 each: 2 fp, 1 fn.
    assert [results[f"VPQ{window}"] for window in (1, 2, 3, 4)] == pytest.approx([100, 100 * 2 / 3.5, 100 * 4 / 9, 0])
    assert results["VPQ"] == pytest.approx((100 + 100 * 2 / 3.5 + 100 * 4 / 9) / 4)
    assert (results["VPQ_th"], results["VPQ_st"]) == (results["VPQ"], None)
    assert results["per_class"][str(CAR)]["VPQ"] == results["VPQ"]
    assert results["per_class"][str(DOG)] == dict.fromkeys(("VPQ", "VPQ1", "VPQ2", "VPQ3", "VPQ4"))
    assert results["per_window"]["3"]["SQ"] == pytest.approx(100 * 2 / 3)
    assert results["per_window"]["3"]["RQ"] == pytest.approx(100 * 2 / 3)


def test_equal_ids_match_over_all_windows():
    renamed = [panoptic([[9] * 4], s9=CAR)] * 4
    assert vpq(CARS, renamed)["VPQ"] == 100


def test_a_poor_mask_in_one_frame_can_match_over_the_window():
    # Frame 0: 1 of 4 pixels, no match alone. With frame 1: 5 / 8.
    prediction = [panoptic([[5, 0, 0, 0]], s5=CAR), panoptic([[5] * 4], s5=CAR)]
    results = vpq(CARS[:2], prediction, windows=(1, 2))
    # One frame: one match of IoU 1, one fp, one fn.
    assert (results["VPQ1"], results["VPQ2"]) == (pytest.approx(50), pytest.approx(62.5))


def test_void_and_crowds_are_counted_over_the_window():
    crowd, void = panoptic([[1, 1]], crowds=[1], s1=CAR), panoptic([[0, 0]])
    sky = panoptic([[2, 2]], s2=SKY)
    car = panoptic([[5, 5]], s5=CAR)
    # 5 lies on a crowd, on void, on sky: 4 of its 6 pixels do not count against it.
    results = vpq([crowd, void, sky], [car] * 3, windows=(1, 3))
    assert results["per_window"]["3"]["PQ_th"] is None
    # Frame by frame the one on sky is a false positive.
    assert results["per_window"]["1"]["PQ_th"] == 0


@pytest.mark.parametrize(("mode", "expected"), [("reference", 0), ("corrected", None)])
def test_of_two_crowds_in_a_window_the_reference_takes_the_last(mode, expected):
    # The crowds 1 and 2 cover half of the tube 5 each; exactly half does not hide it.
    ground_truth = [panoptic([[1, 1]], crowds=[1], s1=CAR), panoptic([[2, 2]], crowds=[2], s2=CAR)]
    results = vpq(ground_truth, [panoptic([[5, 5]], s5=CAR)] * 2, windows=(2,), mode=mode)
    assert results["VPQ"] == expected


def test_a_video_shorter_than_the_window_has_none():
    results = vpq(CARS[:3], CARS[:3])
    assert (results["VPQ3"], results["VPQ4"], results["VPQ"]) == (100, None, None)


def test_empty_frames_at_the_end_still_end_windows():
    nothing = panoptic([[0] * 4])
    results = vpq([*CARS[:1], nothing], [*CARS[:1], nothing], windows=(1, 2))
    assert (results["VPQ1"], results["VPQ2"]) == (100, 100)
    assert vpq([], [])["VPQ"] is None
    assert vpq([nothing], [nothing])["VPQ1"] is None


def test_windows_do_not_reach_into_the_next_video():
    metric = VideoPanopticQuality(CATEGORIES, windows=(2,))
    metric.update("a", CARS[:1], CARS[:1])
    metric.update("b", CARS[:1], CARS[:1])
    assert metric.compute()["VPQ"] is None


@pytest.mark.parametrize(
    ("ground_truth", "prediction", "message"),
    [
        (CARS, CARS[:3], "video 'clip', frame 3: the prediction has no such frame"),
        (CARS[:3], CARS, "video 'clip', frame 3: the ground truth has no such frame"),
        (CARS[:1], [panoptic([[1]], s1=CAR)], "video 'clip', frame 0: expected .* one size"),
        (CARS[:2], [CARS[0], panoptic([[1] * 4], s1=DOG)], "prediction, segment 1: expected one category .* 1 and 17"),
    ],
)
def test_inconsistent_videos_are_rejected_and_not_counted(ground_truth, prediction, message):
    metric = VideoPanopticQuality(CATEGORIES)
    with pytest.raises(DatasetError, match=message):
        metric.update("clip", ground_truth, prediction)
    assert len(metric) == 0


@pytest.mark.parametrize("options", [{"windows": ()}, {"windows": (0, 1)}, {"windows": (2, 1)}, {"mode": "exact"}])
def test_invalid_options(options):
    with pytest.raises(ValueError, match="must be"):
        VideoPanopticQuality(CATEGORIES, **options)


def slow_vpq(clips, window):
    """VPQ of one window: every window is one image, its frames one below the other."""
    metric = PanopticQuality(CATEGORIES, "corrected")
    number = 0
    for clip in clips:
        for start in range(len(clip) - window + 1):
            images = []
            for side in (0, 1):
                frames = [frame[side] for frame in clip[start : start + window]]
                segments = {}
                for frame in frames:
                    for segment in frame.segments:
                        segments.setdefault(segment.segment_id, segment)
                ids = np.concatenate([frame.segment_ids for frame in frames])
                images.append(PanopticSegmentation(ids, tuple(segments.values())))
            metric.update(number, *images)
            number += 1
    return metric.compute()


@settings(max_examples=25)
@given(videos())
def test_equals_panoptic_quality_of_stacked_frames(clips):
    metric = VideoPanopticQuality(CATEGORIES, mode="corrected")
    for number, clip in enumerate(clips):
        metric.update(number, *zip(*clip, strict=True))
    results = metric.compute()
    for window in (1, 2, 3, 4):
        expected = slow_vpq(clips, window)
        assert {name: expected[name] for name in results["per_window"][str(window)]} == results["per_window"][
            str(window)
        ]
        for category_id, row in results["per_class"].items():
            assert row[f"VPQ{window}"] == expected["per_class"][category_id]["PQ"]


def test_merged_and_saved_counts_equal_one_pass():
    switched = [panoptic([[5] * 4], s5=CAR)] * 2 + [panoptic([[6] * 4], s6=CAR)] * 2
    parts = [VideoPanopticQuality(CATEGORIES) for _ in range(3)]
    for part, clips in zip(parts, ([("a", CARS), ("b", switched)], [("a", CARS)], [("b", switched)]), strict=True):
        for video_id, prediction in clips:
            part.update(video_id, CARS, prediction)
    whole, first, second = parts
    second.merge(first)
    assert second.compute() == whole.compute()
    header, arrays = second.state()
    read = VideoPanopticQuality.from_state(json.loads(json.dumps(header)), arrays)
    assert read.compute() == whole.compute()
    with pytest.raises(DatasetError, match="in both"):
        whole.merge(first)
    with pytest.raises(ValueError, match="same categories and options"):
        whole.merge(VideoPanopticQuality(CATEGORIES, windows=(1,)))


@pytest.mark.parametrize("table", ["frames", "pairs", "ground_truth"])
def test_damaged_counts_are_rejected(table):
    metric = VideoPanopticQuality(CATEGORIES)
    metric.update("a", CARS, CARS)
    header, arrays = metric.state()
    damaged = arrays[table].copy()
    damaged[damaged.dtype.names[0] if table != "ground_truth" else "category_id"][1] += 3
    with pytest.raises(DatasetError, match="expected saved counts of video panoptic quality"):
        VideoPanopticQuality.from_state(header, {**arrays, table: damaged})
