"""Random head outputs of one image, of every kind that a method may need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segkit.fusion.paste import paste_masks
from segkit.structures import HeadOutputs, InstanceMasks, SemanticScores

THINGS, STUFF = 3, 2
# A channel for each class: stuff 1, thing 0, thing 1, stuff 2, thing 2.
STUFF_IDS, THING_IDS = np.array([1, 0, 0, 2, 0]), np.array([-1, 0, 1, -1, 2])


def scene(seed: int, *, count: int | None = None, size_hw: tuple[int, int] | None = None) -> HeadOutputs:
    """Returns up to 6 instances with distinct scores and boxes partly outside the image, all logits, no centres."""
    rng = np.random.default_rng(seed)
    height, width = size_hw or (int(rng.integers(1, 14)), int(rng.integers(1, 14)))
    count = int(rng.integers(0, 7)) if count is None else count
    logits = rng.normal(0, 3, (len(STUFF_IDS), height, width)).astype(np.float32)
    logits += rng.normal(0, 3, (len(STUFF_IDS), 1, 1)).astype(np.float32)
    semantic = SemanticScores(channels=logits.argmax(axis=0), stuff_ids=STUFF_IDS, thing_ids=THING_IDS, logits=logits)
    return HeadOutputs(instances(rng, count, (height, width)), semantic)


def instances(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> InstanceMasks:
    """Returns `count` instances with most probabilities close to 0 or 1."""
    height, width = size_hw
    corners = rng.uniform(-2, [width, height], (count, 2))
    sides = rng.uniform(1, [width + 2, height + 2], (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    probs = (1 / (1 + np.exp(-rng.normal(1.5, 2.5, (count, 4, 4))))).astype(np.float32)
    scores = rng.permutation(np.linspace(0.2, 0.99, max(count, 1)))[:count].astype(np.float32)
    return paste_masks(probs, boxes, scores, rng.integers(0, THINGS, count), size_hw)


def reordered(outputs: HeadOutputs, order: np.ndarray) -> HeadOutputs:
    """Returns the outputs with the instances in another order."""
    old = outputs.instances
    assert old.mask_probs is not None
    moved = InstanceMasks(
        size_hw=old.size_hw,
        boxes_xyxy=old.boxes_xyxy[order],
        scores=old.scores[order],
        class_ids=old.class_ids[order],
        corners_xy=old.corners_xy[order],
        crops=tuple(old.crops[i] for i in order),
        mask_probs=old.mask_probs[order],
    )
    return replace(outputs, instances=moved)


def with_scores(outputs: HeadOutputs, score: float) -> HeadOutputs:
    """Returns the outputs with one score for all instances."""
    scores = np.full(len(outputs.instances), score, dtype=np.float32)
    return replace(outputs, instances=replace(outputs.instances, scores=scores))
