"""Losses that all writers report."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.formats.base import list_lost_annotations
from segkit.formats.registry import READERS
from segkit.structures import PanopticSegmentation, Segment, mask_to_rle


def build_empty(size_hw: tuple[int, ...]) -> PanopticSegmentation:
    return PanopticSegmentation(np.zeros(size_hw, np.int32), ())


@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 5))))
def test_overlaps_are_the_pixels_of_every_mask_but_one(masks: np.ndarray) -> None:
    hidden_px = int(np.maximum(masks.sum(axis=0) - 1, 0).sum())
    annotations = [{"segmentation": mask_to_rle(mask)} for mask in masks]
    messages = list_lost_annotations(annotations, build_empty(masks.shape[1:]))
    assert messages == ([f"annotations: {hidden_px} pixels under other masks cannot be held"] if hidden_px else [])


def test_equal_polygons_have_losses_and_missing_annotations_have_none() -> None:
    assert list_lost_annotations(None, build_empty((2, 2))) == []
    assert list_lost_annotations([{"segmentation": [[0, 0, 2, 0, 2, 2]]}] * 2, build_empty((2, 2))) != []


def test_scores_are_a_loss_unless_the_segments_have_them() -> None:
    annotations = [{"segmentation": [[0, 0, 2, 0, 2, 2]], "score": 0.5}]
    assert list_lost_annotations(annotations, build_empty((2, 2))) == ["annotations: the keys 'score' cannot be held"]
    scored = PanopticSegmentation(np.ones((2, 2), np.int32), (Segment(1, 1, True, 4, score=0.5),))
    assert list_lost_annotations(annotations, scored) == []


def test_only_complete_labellings_mark_void():
    marking = {name for name, reader in READERS.items() if reader.marks_void}
    assert marking >= {"coco-panoptic", "two-channel-png", "cityscapes", "ade20k", "voc", "semantic-maps"}
    assert not marking & {
        "coco-instances",
        "instance-maps",
        "labelme",
        "decathlon",
        "coco-results",
        "panoptic-predictions",
    }
