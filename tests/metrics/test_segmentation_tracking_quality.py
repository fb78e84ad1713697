"""STQ on hand-drawn clips, and against a slow plain version."""

import math

import numpy as np
import pytest
from hypothesis import given

from segkit.metrics import VideoPanopticQuality
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, DOG, SKY, panoptic, videos

NAMES = ("STQ", "AQ", "STQ_IoU")


def stq(*clips):
    """Of (frames of the ground truth, frames of the prediction) each."""
    metric = VideoPanopticQuality(CATEGORIES)
    for number, clip in enumerate(clips):
        metric.update(number, *clip)
    results = metric.compute()
    return [results[name] for name in NAMES]


CAR_FRAME, SKY_FRAME = panoptic([[1] * 4], s1=CAR), panoptic([[9] * 4], s9=SKY)


def test_an_id_switch_halves_the_association():
    prediction = [panoptic([[5] * 4], s5=CAR)] * 2 + [panoptic([[6] * 4], s6=CAR)] * 2
    # Two objects of 8 pixels share 8 of 16 with the car: 2 * (8 / 16) * (8 / 16) = 0.5. The class is right.
    assert stq(([CAR_FRAME] * 4, prediction)) == pytest.approx([100 * math.sqrt(0.5), 50, 100])


def test_a_wrong_class_costs_the_iou_alone():
    prediction = [panoptic([[5, 5, 5, 5], [9, 9, 9, 9]], s5=DOG, s9=SKY)]
    # Car and dog have IoU 0, sky 1.
    clip = [panoptic([[1, 1, 1, 1], [9, 9, 9, 9]], s1=CAR, s9=SKY)], prediction
    assert stq(clip) == pytest.approx([100 * math.sqrt(1 / 3), 100, 100 / 3])


def test_partial_overlap_over_two_videos():
    # Video 0: 3 of the 4 pixels, and one more: 3 / 4 * 3 / 5. Video 1: nothing of the car. Ids of videos are apart.
    first = [panoptic([[1, 1, 1, 1, 9]], s1=CAR, s9=SKY)], [panoptic([[9, 1, 1, 1, 1]], s1=CAR, s9=SKY)]
    second = [CAR_FRAME], [panoptic([[1] * 4], s1=SKY)]
    # IoU of cars: 3 / (8 + 4 - 3), of sky: 0 / (1 + 5).
    aq, iou = (3 / 4 * 3 / 5 + 0) / 2, (3 / 9 + 0) / 2
    assert stq(first, second) == pytest.approx([100 * math.sqrt(aq * iou), 100 * aq, 100 * iou])


def test_crowds_and_void():
    crowd, void = panoptic([[2] * 4], crowds=[2], s2=CAR), panoptic([[0] * 4])
    prediction = [panoptic([[5] * 4], s5=CAR)] * 3
    # The 4 pixels of 5 on the crowd do not count in AQ, those on void do: 4 / 4 * 4 / 8. Void is no part of the IoU.
    clip = [CAR_FRAME, crowd, void], prediction
    assert stq(clip) == pytest.approx([100 * math.sqrt(0.5), 50, 100])


def test_void_in_the_prediction_is_no_class():
    # Half of the car is missed: AQ 1/2 * 1/2, IoU 1/2 of the only class.
    clip = [CAR_FRAME], [panoptic([[5, 5, 0, 0]], s5=CAR)]
    assert stq(clip) == pytest.approx([100 * math.sqrt(0.125), 25, 50])


def test_without_things_there_is_no_stq():
    assert stq(([SKY_FRAME], [SKY_FRAME])) == [None, None, 100]
    assert stq(([panoptic([[0]])], [panoptic([[1]], s1=CAR)])) == [None, None, None]


def slow_stq(clips):
    """Pixel by pixel, with sets."""
    classes = {category.category_id: category.isthing for category in CATEGORIES.categories}
    objects, predicted = {}, {}
    inter, union = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
    for video, clip in enumerate(clips):
        for frame, (ground_truth, prediction) in enumerate(clip):
            gt_of, pred_of = ({s.segment_id: s for s in x.segments} for x in (ground_truth, prediction))
            for place, gt_id in np.ndenumerate(ground_truth.segment_ids):
                gt, pred = gt_of.get(int(gt_id)), pred_of.get(int(prediction.segment_ids[place]))
                pixel = (frame, place)
                for category_id in classes if gt else ():
                    inside = [s is not None and s.category_id == category_id for s in (gt, pred)]
                    inter[category_id] += all(inside)
                    union[category_id] += any(inside)
                if gt and classes[gt.category_id] and gt.iscrowd:
                    continue
                if gt and classes[gt.category_id]:
                    objects.setdefault((video, gt.segment_id), set()).add(pixel)
                if pred and classes[pred.category_id]:
                    predicted.setdefault((video, pred.segment_id), set()).add(pixel)
    ious = [inter[category_id] / union[category_id] for category_id in classes if union[category_id]]
    terms = [
        len(own & other) ** 2 / len(own) / len(own | other)
        for (video, _), own in objects.items()
        for (other_video, _), other in predicted.items()
        if video == other_video
    ]
    return sum(terms) / len(objects) if objects else None, sum(ious) / len(ious) if ious else None


@given(videos())
def test_it_equals_a_slow_version(clips):
    """And the order of the videos moves no bit."""
    result = stq(*(tuple(zip(*clip, strict=True)) for clip in clips))
    aq, iou = slow_stq(clips)
    expected = [None if aq is None or iou is None else math.sqrt(aq * iou), aq, iou]
    assert result == pytest.approx([None if x is None else 100 * x for x in expected])
    assert stq(*(tuple(zip(*clip, strict=True)) for clip in reversed(clips))) == result
