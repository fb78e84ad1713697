"""Valid and invalid head outputs; logits of all channels and of the best channels only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkit.structures import CenterOffsets, HeadOutputs, InstanceMasks, SemanticScores

# Three channels: stuff 4, all things, the thing 2 alone.
STUFF_IDS, THING_IDS = np.array([4, 0, 0]), np.array([-1, -1, 2])
CHANNELS = np.array([[0, 1, 2], [2, 1, 0]])
WHOLE = (slice(None), slice(None))


def semantic(channels: Any = CHANNELS, stuff_ids: Any = STUFF_IDS, thing_ids: Any = THING_IDS, **more: Any) -> Any:
    return SemanticScores(np.asarray(channels), np.asarray(stuff_ids), np.asarray(thing_ids), **more)


def instances(size_hw: tuple[int, int] = (2, 3), class_ids: Any = (2,), **more: Any) -> InstanceMasks:
    count = len(class_ids)
    values = {
        "boxes_xyxy": np.zeros((count, 4), dtype=np.float32),
        "scores": np.ones(count, dtype=np.float32),
        "class_ids": np.array(class_ids, dtype=np.int64),
        "corners_xy": np.zeros((count, 2), dtype=np.int64),
        "crops": (np.ones((1, 1), dtype=bool),) * count,
    }
    return InstanceMasks(size_hw, **(values | more))


def test_channels_are_mapped_to_stuff_ids() -> None:
    assert semantic().stuff_map().tolist() == [[4, 0, 0], [0, 0, 4]]
    assert semantic().size_hw == (2, 3)
    many = semantic(stuff_ids=[70000, 0, 0])
    assert many.stuff_map().tolist() == [[70000, 0, 0], [0, 0, 70000]]


def test_a_map_of_stuff_ids_is_its_own_channels() -> None:
    """Stuff ids 0, 3 and 1: channels 0..3, channel 0 is for things; the map is not copied."""
    stuff_ids = np.array([[0, 3], [1, 3]], dtype=np.uint8)
    scores = SemanticScores.from_stuff_ids(stuff_ids)
    assert scores.stuff_map() is stuff_ids
    assert scores.stuff_ids.tolist() == [0, 1, 2, 3]
    assert scores.thing_channel(5) == 0
    assert SemanticScores.from_stuff_ids(np.zeros((0, 4), dtype=int)).size_hw == (0, 4)


def test_a_thing_has_its_own_channel_or_the_shared_one() -> None:
    assert (semantic().thing_channel(2), semantic().thing_channel(0)) == (2, 1)
    own = semantic(CHANNELS % 2, [4, 0], [-1, 2])
    with pytest.raises(ValueError, match="no channel for the thing class 3, nor one for all things"):
        own.thing_channel(3)


def test_logits_of_all_channels() -> None:
    logits = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    scores = semantic(logits=logits)
    assert scores.logit(1, WHOLE).tolist() == logits[1].tolist()
    assert scores.logit(2, (slice(1, 2), slice(0, 2))).tolist() == [[15, 16]]
    with pytest.raises(ValueError, match="logits are needed"):
        semantic().logit(1, WHOLE)


def test_logits_of_the_best_channels() -> None:
    """Two channels of each pixel are known. Channel 0 is best at (0, 0) with 9, second at (1, 1) with 4 and at (1, 2)
    with 2; elsewhere it is unknown and assumed to equal the second logit.
    """
    best = np.array([[[0, 1, 2], [2, 1, 1]], [[1, 2, 1], [1, 0, 0]]])
    logits = np.array([[[9, 8, 7], [6, 5, 4]], [[3, 1, 2], [5, 4, 2]]], dtype=np.float32)
    scores = semantic(best[0], logits=logits, logit_channels=best)
    assert scores.logit(0, WHOLE).tolist() == [[9, 1, 2], [5, 4, 2]]
    assert scores.logit(2, (slice(0, 1), slice(1, 3))).tolist() == [[1, 7]]
    scores.logit(0, WHOLE)[:] = -1
    assert scores.logits is not None
    assert scores.logits.tolist() == logits.tolist()  # reading does not write


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": [0, 1]}, r"channels must be \(H, W\) integers, got \(2,\) int64"),
        ({"channels": [[0.0]]}, r"channels must be \(H, W\) integers, got \(1, 1\) float64"),
        ({"channels": [[True]]}, r"channels must be \(H, W\) integers, got \(1, 1\) bool"),
        ({"channels": [[0, 3]]}, r"channels must be in 0..2, got 0..3"),
        ({"channels": [[-1, 2]]}, r"channels must be in 0..2, got -1..2"),
        ({"channels": np.array([[-1]], dtype=np.int8)}, r"channels must be in 0..2, got -1..-1"),
        ({"channels": np.array([[3]], dtype=">u2")}, r"channels must be in 0..2, got 3..3"),
        ({"stuff_ids": [4, 0]}, r"must be \(C,\), one per channel, got \(2,\) and \(3,\)"),
        ({"stuff_ids": [[4, 0, 0]], "thing_ids": [[-1, -1, 2]]}, r"must be \(C,\), one per channel"),
        ({"stuff_ids": [4, -3, 0]}, "stuff_ids must be at least 0, got -3"),
        ({"thing_ids": [-1, -2, 2]}, "thing_ids must be at least -1, got -2"),
        ({"stuff_ids": [4, 4, 0]}, "stuff_ids must be distinct, got 4 for several channels"),
        ({"thing_ids": [-1, 2, 2]}, "thing_ids must be distinct, got 2 for several channels"),
        ({"stuff_ids": [4, 0, 5]}, "a channel must belong to stuff or to a thing, got channel 2 for both"),
        ({"logits": np.zeros((2, 2, 3))}, r"must have the shape \(3, 2, 3\), got \(2, 2, 3\)"),
        ({"logits": np.zeros((3, 3, 2))}, r"must have the shape \(3, 2, 3\), got \(3, 3, 2\)"),
        ({"logits": np.full((3, 2, 3), np.nan)}, "logits must be numbers, got NaN"),
        ({"logit_channels": CHANNELS[None]}, "logit_channels must come with logits"),
        (
            {"logits": np.zeros((1, 2, 3)), "logit_channels": CHANNELS[None] + 1},
            r"logit_channels must be in 0..2, got 1..3",
        ),
        (
            {"logits": np.zeros((1, 2, 3)), "logit_channels": CHANNELS[None] / 2},
            "logit_channels must be integers, got float64",
        ),
        (
            {"logits": np.zeros((2, 2, 3)), "logit_channels": CHANNELS[None]},
            r"must have the shape \(1, 2, 3\), got \(2, 2, 3\) and \(1, 2, 3\)",
        ),
        (
            {"logits": np.zeros((0, 2, 3)), "logit_channels": np.zeros((0, 2, 3), dtype=int)},
            r"must have the shape \(1, 2, 3\), got \(0, 2, 3\)",
        ),
    ],
)
def test_inconsistent_semantic_scores_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semantic(**wrong)


@pytest.mark.parametrize(
    ("stuff_ids", "message"),
    [
        ([[-1, 2]], "stuff_ids must be in 0..16777215, got -1..2"),
        ([[2**24, 2]], "stuff_ids must be in 0..16777215, got 2..16777216"),
        ([[0.5]], r"stuff_ids must be \(H, W\) integers, got \(1, 1\) float64"),
        ([3], r"stuff_ids must be \(H, W\) integers, got \(1,\) int64"),
    ],
)
def test_invalid_stuff_id_maps_are_rejected(stuff_ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticScores.from_stuff_ids(np.array(stuff_ids))


def test_an_infinite_logit_is_not_rejected_as_nan() -> None:
    logits = np.zeros((3, 2, 3), dtype=np.float32)
    logits[0, 0, 0] = -np.inf
    assert semantic(logits=logits).logit(0, WHOLE)[0, 0] == -np.inf


def test_inconsistent_centres_are_rejected() -> None:
    heatmap, offsets = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 2, 3), dtype=np.float32)
    assert CenterOffsets(heatmap, offsets).heatmap is heatmap
    for wrong in (offsets[:1], offsets[:, :1], heatmap):
        with pytest.raises(ValueError, match=r"heatmap must be \(H, W\) and offsets_yx \(2, H, W\), got \(2, 3\) and"):
            CenterOffsets(heatmap, wrong)
    for values in ((heatmap * np.nan, offsets), (heatmap, offsets * np.nan)):
        with pytest.raises(ValueError, match="heatmap and offsets_yx must be numbers, got NaN"):
            CenterOffsets(*values)


def test_sizes_must_agree() -> None:
    centers = CenterOffsets(np.zeros((3, 2), dtype=np.float32), np.zeros((2, 3, 2), dtype=np.float32))
    for name, wrong in (("instances", instances((3, 2))), ("stuff_masks", instances((3, 2))), ("centers", centers)):
        parts: dict[str, Any] = {"instances": instances()} | {name: wrong}
        with pytest.raises(ValueError, match=rf"{name} must have the semantic map's size \(2, 3\), got \(3, 2\)"):
            HeadOutputs(semantic=semantic(), **parts)


def test_class_ids_must_be_in_their_id_space() -> None:
    with pytest.raises(ValueError, match="class_ids of instances must not be negative, got -1"):
        HeadOutputs(instances(class_ids=[0, -1]), semantic())
    with pytest.raises(ValueError, match="class_ids of stuff_masks must be at least 1, got 0"):
        HeadOutputs(instances(), semantic(), stuff_masks=instances(class_ids=[3, 0]))
    none = instances(class_ids=[])
    assert HeadOutputs(none, semantic(), stuff_masks=none).stuff_masks is none


def test_instances_need_a_channel_of_things() -> None:
    only_stuff = semantic([[0, 1]], [4, 5], [-1, -1])
    with pytest.raises(ValueError, match="no channel of things, but there are instances"):
        HeadOutputs(instances((1, 2)), only_stuff)
    assert HeadOutputs(instances((1, 2), class_ids=[]), only_stuff).semantic is only_stuff


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": np.array([np.nan])}, "scores and mask_probs must be numbers, got NaN"),
        ({"mask_probs": np.full((1, 2, 2), np.nan)}, "scores and mask_probs must be numbers, got NaN"),
        ({"mask_probs": np.zeros((2, 2, 2))}, r"must have the same length, got \[1, 2\]"),
        ({"scores": np.ones(2)}, r"must have the same length, got \[1, 2\]"),
        ({"crops": (np.ones((1, 1)),)}, r"crops must be \(h, w\) bool, got \(1, 1\) float64"),
        ({"crops": (np.ones(1, dtype=bool),)}, r"crops must be \(h, w\) bool, got \(1,\) bool"),
        ({"corners_xy": np.array([[3, 0]])}, r"crop \(1, 1\) at \(x=3, y=0\) leaves the 2 x 3 image"),
        ({"corners_xy": np.array([[0, 2]])}, r"crop \(1, 1\) at \(x=0, y=2\) leaves the 2 x 3 image"),
        ({"corners_xy": np.array([[-1, 0]])}, r"crop \(1, 1\) at \(x=-1, y=0\) leaves"),
    ],
)
def test_inconsistent_instances_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instances(**wrong)
