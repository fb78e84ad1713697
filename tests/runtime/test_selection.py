"""Segments and instances that are left out of a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from segkit.runtime.prediction import Prediction
from segkit.runtime.selection import find_category_ids, select_segments
from segkit.structures import Category, CategorySet, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError

CATEGORIES = CategorySet(
    [Category(3, "cat", True, (1, 2, 3)), Category(4, "dog", True, (3, 2, 1)), Category(5, "sky", False, (4, 5, 6))]
)


def build_prediction() -> Prediction:
    """Two cats, scores 0.9 and 0.4, a dog, 0.5, and the sky, each with a pixel; the classes as a map too."""
    things = [(1, 3, 0.9), (2, 3, 0.4), (7, 4, 0.5)]
    segments = [Segment(segment_id, category_id, True, 1, score=score) for segment_id, category_id, score in things]
    masks = np.eye(4, dtype=np.bool_)[:3].reshape(3, 1, 4)
    boxes = np.array([[x, 0, x + 1, 1] for x in range(3)], dtype=np.float32)
    scores = np.array([0.9, 0.4, 0.5], dtype=np.float32)
    return Prediction(
        (1, 4),
        CATEGORIES,
        PanopticSegmentation(np.array([[1, 2, 7, 9]], dtype=np.int32), (*segments, Segment(9, 5, False, 1))),
        InstanceMasks.from_full(masks, boxes, scores, np.array([0, 0, 1])),
        np.array([[0, 0, 1, 2]], dtype=np.uint8),
        CATEGORIES.build_semantic_space("per_class"),
    )


@pytest.mark.parametrize(
    ("min_score", "names", "ids", "scores", "channels"),
    [
        (0.0, None, [1, 2, 7, 9], [0.9, 0.4, 0.5], [0, 0, 1, 2]),
        (0.5, None, [1, 0, 7, 9], [0.9, 0.5], [0, 0, 1, 2]),  # a score that is equal stays, and stuff
        (0.5, ["cat"], [1, 0, 0, 0], [0.9], [0, 0, 255, 255]),
        (0.0, ["sky", "dog"], [0, 0, 7, 9], [0.5], [255, 255, 1, 2]),
        (0.95, ["cat"], [0, 0, 0, 0], [], [0, 0, 255, 255]),
    ],
)
def test_selection(
    min_score: float, names: list[str] | None, ids: list[int], scores: list[float], channels: list[int]
) -> None:
    category_ids = None if names is None else find_category_ids(names, CATEGORIES)
    selected = select_segments(build_prediction(), min_score, category_ids)
    assert selected.panoptic is not None
    assert selected.instances is not None
    assert selected.semantic is not None
    assert selected.panoptic.segment_ids.tolist() == [ids]
    assert [segment.segment_id for segment in selected.panoptic.segments] == [each for each in ids if each]
    np.testing.assert_allclose(selected.instances.scores, scores)
    assert selected.semantic.tolist() == [channels]


def test_unknown_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="the model has no class 'Cats'; did you mean 'cat'"):
        find_category_ids(["dog", "Cats"], CATEGORIES)
