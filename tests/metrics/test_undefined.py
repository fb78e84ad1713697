"""The reasons for undefined metrics, from the results of each metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkit.metrics import PanopticQuality, SemanticIoU
from segkit.metrics.undefined import OF_THIS_SIZE, add_notes, explain_undefined
from segkit.metrics.volume_dice import VolumeDice
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CAR, DOG, SKY = (
    Category(1, "car", True, (0, 0, 0)),
    Category(2, "dog", True, (0, 0, 1)),
    Category(3, "sky", False, (0, 0, 2)),
)
NOTHING = "ground truth and predictions have no segment"


def segmentation(*category_ids: int, side_px: int = 100, iscrowd: bool = False) -> PanopticSegmentation:
    """A row of squares, one for each category."""
    ids = np.repeat(np.arange(1, len(category_ids) + 1, dtype=np.int32), side_px)[None].repeat(side_px, axis=0)
    segments = [Segment(i, c, c != 3, side_px**2, iscrowd) for i, c in enumerate(category_ids, 1)]
    return PanopticSegmentation(ids, tuple(segments))


def explain_panoptic(
    categories: list[Category], ground_truth: PanopticSegmentation, prediction: PanopticSegmentation, **options: Any
) -> list[str]:
    metric = PanopticQuality(CategorySet(categories), **options)
    metric.update(1, ground_truth, prediction)
    lines = explain_undefined({"panoptic_seg": metric.compute()}, metric.categories)
    return [line.removeprefix("panoptic_seg ") for line in lines if "of this size" not in line]


@pytest.mark.parametrize(
    ("classes", "present", "lines"),
    [
        ([CAR, SKY], (1, 3), []),
        ([CAR], (1,), ["PQ_st is undefined: the dataset has no classes of stuff"]),
        ([SKY], (3,), ["PQ_th is undefined: the dataset has no classes of things"]),
        (
            [CAR, SKY],
            (1,),
            [
                f"PQ_st is undefined: {NOTHING} of stuff",
                "1 of 2 classes have no ground truth that counts: 'sky'",
            ],
        ),
        ([CAR, DOG, SKY], (1, 3), ["1 of 3 classes have no ground truth that counts: 'dog'"]),
    ],
)
def test_panoptic_quality(classes: list[Category], present: tuple[int, ...], lines: list[str]) -> None:
    assert explain_panoptic(classes, segmentation(*present), segmentation(*present)) == lines


def test_panoptic_quality_of_crowds_and_of_false_positives() -> None:
    """A prediction on a crowd of its category counts nowhere; one of another category is a false positive."""
    crowd = segmentation(1, iscrowd=True)
    nothing = [f"PQ is undefined: {NOTHING} that counts (crowds do not)"]
    assert explain_panoptic([CAR, SKY], crowd, segmentation(1)) == nothing
    assert explain_panoptic([CAR, SKY], crowd, segmentation(3), dagger=True) == [
        f"PQ_th is undefined: {NOTHING} of things",
        "PQ_dagger_st is undefined: the ground truth has no segment of stuff",
        "1 of 2 classes have no ground truth that counts: 'car'",
    ]


def test_sizes_without_a_segment() -> None:
    metric = PanopticQuality(CategorySet([SKY]))
    metric.update(1, segmentation(3, side_px=32), segmentation(3, side_px=32))
    lines = explain_undefined({"panoptic_seg": metric.compute()})
    assert lines[1:] == [
        f"panoptic_seg PQs, panoptic_seg PQl are undefined: {NOTHING} {OF_THIS_SIZE}",
    ]


def test_average_precision_also_of_other_evaluators() -> None:
    """Detectron2's evaluators give NaN. Equal reasons share a line."""
    nan = float("nan")
    boxes = {"AP": 50.0, "APs": nan, "APm": 50.0, "APl": 50.0, "AP-car": 50.0, "AP-dog": nan}
    results = {"bbox": boxes, "segm": {**boxes, "AP-car": None}, "speed": {"fps": None}, "notes": ["old"]}
    assert explain_undefined(results) == [
        f"bbox APs, segm APs are undefined: the ground truth has no object {OF_THIS_SIZE}",
        "1 of 2 classes have no ground truth that counts: 'dog'",
        "segm: 1 of 2 classes have no ground truth that counts: 'car'",
    ]
    nothing = {"AP": None, "APs": None, "AP-car": None}
    no_object = "the ground truth has no object that counts (crowds do not)"
    assert explain_undefined({"bbox": nothing, "segm": nothing}) == [f"bbox AP, segm AP are undefined: {no_object}"]
    (line,) = explain_undefined({"bbox": nothing}, CategorySet([SKY]))
    assert line == "bbox AP is undefined: the dataset has no classes of things"


def test_semantic_iou() -> None:
    one, two = SemanticIoU(["sky"]), SemanticIoU(["sky", "car"])
    (line,) = explain_undefined({"sem_seg": two.compute()})
    assert line == "sem_seg mIoU is undefined: the ground truth has no pixel of a class"
    for metric in (one, two):
        metric.update(np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert {*one.compute().values()} == {None}
    (line,) = explain_undefined({"sem_seg": one.compute()})
    assert line == "sem_seg mIoU is undefined: there is only the class 'sky', which every prediction has right"
    (line,) = explain_undefined({"sem_seg": two.compute()})
    assert line == "1 of 2 classes have no ground truth that counts: 'car'"


def test_volume_dice() -> None:
    metric = VolumeDice(["background", "lesion", "vessel"])
    (line,) = explain_undefined({"volumes": metric.compute()})
    assert line == "volumes mDice is undefined: ground truth and predictions have no voxel of a class"
    metric.update("a", 0, np.ones((2, 2), int), np.ones((2, 2), int))
    (line,) = explain_undefined({"volumes": metric.compute()})
    assert line == "1 of 2 classes have no ground truth that counts: 'vessel'"


def test_notes_stand_beside_the_tasks() -> None:
    assert add_notes({"bbox": {"AP": 1.0}}) == {"bbox": {"AP": 1.0}}
    assert add_notes({"bbox": {"AP": 1.0}}, notes=["by hand"]) == {"bbox": {"AP": 1.0}, "notes": ["by hand"]}
