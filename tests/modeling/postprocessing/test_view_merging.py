"""Instances, classes and centers of several views of one image become one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segkit.fusion.paste import paste_masks
from segkit.modeling.postprocessing.view_merging import ViewOutputs, merge_instances, merge_views
from segkit.structures import CenterOffsets, InstanceMasks

SIZE_HW = (20, 30)


def view(*boxes: tuple[float, float, float, float], scores: list[float], prob: float = 1.0) -> InstanceMasks:
    """Instances of one class, each with one probability in its whole box (left, top, right, bottom)."""
    probs = np.full((len(boxes), 4, 4), prob, dtype=np.float32)
    arrays = np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(scores, dtype=np.float32)
    return paste_masks(probs, *arrays, np.zeros(len(boxes), dtype=np.int64), SIZE_HW)


def test_the_score_is_the_mean_of_all_views_and_the_box_is_weighted_by_scores() -> None:
    merged = merge_instances([view((4, 4, 14, 14), scores=[0.9]), view((4, 4, 14, 18), scores=[0.3]), view(scores=[])])
    np.testing.assert_allclose(merged.scores, [0.4])  # (0.9 + 0.3 + 0) / 3
    np.testing.assert_allclose(merged.boxes_xyxy, [[4, 4, 14, 15]])  # 0.75 * 14 + 0.25 * 18


def test_masks_are_averaged_as_probabilities() -> None:
    one, other = (view((4, 4, 14, 14), scores=[0.5], prob=prob) for prob in (1.0, 0.6))
    np.testing.assert_allclose(merge_instances([one, other]).mask_probs, 0.8, rtol=1e-6)


def test_a_mask_is_resampled_from_its_box_to_the_mean_box() -> None:
    one, other = view((4, 4, 12, 12), scores=[0.5]), view((5, 4, 13, 12), scores=[0.5])
    merged = merge_instances([one, other])
    np.testing.assert_allclose(merged.boxes_xyxy, [[4.5, 4, 12.5, 12]])
    # Columns of 2 pixels with centers 5.5, 7.5, 9.5, 11.5. In the first box, whose last center is at 11, the last one
    # is a quarter of a column after it: 0.75; in the second box, whose first center is at 6, likewise the first one.
    assert merged.mask_probs is not None
    np.testing.assert_allclose(merged.mask_probs[0, 0], [0.875, 1, 1, 0.875], rtol=1e-6)


def test_touching_instances_stay_two() -> None:
    scene = view((2, 2, 12, 12), (12, 2, 22, 12), scores=[0.9, 0.8])
    merged = merge_instances([scene, scene])
    np.testing.assert_array_equal(merged.boxes_xyxy, scene.boxes_xyxy)
    np.testing.assert_allclose(merged.scores, scene.scores)


def test_instances_of_one_view_are_never_merged_and_the_best_pairs_are() -> None:
    # Boxes of IoU 8 / 12 = 2/3. The second view scores them the other way: by scores alone, the first instance of the
    # first view would be taken for the second one.
    boxes = (2, 2, 12, 12), (4, 2, 14, 12)
    merged = merge_instances([view(*boxes, scores=[0.9, 0.6]), view(*boxes, scores=[0.7, 0.8])])
    np.testing.assert_array_equal(merged.boxes_xyxy, boxes)
    np.testing.assert_allclose(merged.scores, [0.8, 0.7])


def test_other_classes_are_not_merged() -> None:
    one, other = view((2, 2, 12, 12), scores=[0.9]), view((2, 2, 12, 12), scores=[0.9])
    assert len(merge_instances([one, replace(other, class_ids=other.class_ids + 1)])) == 2


def test_so_many_of_the_highest_scores_are_kept() -> None:
    scene = view((2, 2, 8, 8), (10, 2, 18, 8), (20, 2, 28, 8), scores=[0.5, 0.9, 0.7])
    np.testing.assert_allclose(merge_instances([scene], 2).scores, [0.9, 0.7])
    assert len(merge_instances([view(scores=[]), view(scores=[])])) == 0


def test_probabilities_of_classes_are_averaged() -> None:
    # (0.8 + 0.3) / 2 = 0.55; a constant added to all logits changes no probability.
    logits = [torch.tensor(probs).log().reshape(2, 1, 1) for probs in ([0.8, 0.2], [0.3, 0.7])]
    merged = merge_views((ViewOutputs(logits=each + 5) for each in logits), -1)
    assert merged.logits is not None
    torch.testing.assert_close(merged.logits.exp().flatten(), torch.tensor([0.55, 0.45]))


def test_a_class_that_no_view_sees_has_a_finite_logit() -> None:
    merged = merge_views([ViewOutputs(logits=torch.tensor([0.0, -1e4]).reshape(2, 1, 1))], -1)
    assert merged.logits is not None
    assert merged.logits.isfinite().all()


def test_flipping_mirrors_all_outputs() -> None:
    heat = np.arange(600, dtype=np.float32).reshape(SIZE_HW) / 600
    offsets = np.stack([heat, heat + 1])
    scene = view((2, 2, 12.5, 8), scores=[0.9])
    assert scene.mask_probs is not None
    scene.mask_probs[:, :, 0] = 0
    outputs = ViewOutputs(scene, torch.from_numpy(heat)[None], CenterOffsets(heat, offsets))
    flipped = outputs.flip()
    assert flipped.instances is not None
    assert flipped.centers is not None
    assert flipped.logits is not None
    np.testing.assert_array_equal(flipped.instances.boxes_xyxy, [[17.5, 2, 28, 8]])
    np.testing.assert_array_equal(flipped.instances.to_full(), scene.to_full()[:, :, ::-1])
    np.testing.assert_array_equal(flipped.instances.mask_probs[0, 0], [1, 1, 1, 0])
    np.testing.assert_array_equal(flipped.logits[0], heat[:, ::-1])
    # A center one pixel to the right is one pixel to the left in the mirrored image.
    np.testing.assert_array_equal(flipped.centers.offsets_yx, np.stack([heat[:, ::-1], -(heat + 1)[:, ::-1]]))
    merged = merge_views([outputs, flipped.flip()], -1)
    assert merged.centers is not None
    np.testing.assert_allclose(merged.centers.offsets_yx, offsets, rtol=1e-6)
    np.testing.assert_allclose(merged.centers.heatmap, heat, rtol=1e-6)


def test_masks_without_probabilities_are_refused() -> None:
    scene = view((2, 2, 12, 12), scores=[0.9])
    with pytest.raises(ValueError, match="mask_probs"):
        merge_instances([replace(scene, mask_probs=None)])
