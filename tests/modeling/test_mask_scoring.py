"""Mask Scoring R-CNN: targets and loss by hand and against a slow version, scores, weights of Mask R-CNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from segkit.data.map_masks import MapMasks
from segkit.modeling import register_models
from segkit.modeling.mask_heads.mask_scoring_head import compute_mask_iou_targets, mask_iou_loss
from tests.helpers.small_models import images, small_config, targets

SCORING = {"MODEL__ROI_MASK_HEAD__NAME": "MaskScoringHead", "MODEL__ROI_MASK_HEAD__MASK_IOU__FC_DIM": 16}
SCORING |= {"MODEL__ROI_MASK_HEAD__MASK_IOU__CONV_DIM": 8, "TEST__DETECTIONS_PER_IMAGE": 9}
SCORING |= {"MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 32, "MODEL__RPN__POST_NMS_TOPK_TRAIN": 50}
SIDE = 8  # of the masks and boxes of these tests, so that a cell is a pixel
EMPTY = Instances((32, 32), proposal_boxes=Boxes(torch.zeros(0, 4)))  # of an image without objects


def build_image(masks: Any, corners_xy: list[tuple[int, int]]) -> Instances:
    image = Instances((32, 32), gt_masks=masks)
    image.proposal_boxes = Boxes(torch.tensor([[x, y, x + SIDE, y + SIDE] for x, y in corners_xy]).float())
    return image


def compute_slow_ious(predicted: torch.Tensor, image: Instances) -> list[float]:
    """Masks on the whole image, pixel by pixel. The boxes are of whole pixels."""
    ious = []
    for mask, ground_truth, box in zip(predicted, image.gt_masks, image.proposal_boxes, strict=True):
        left, top, right, bottom = box.int().tolist()
        full = torch.zeros(32, 32, dtype=torch.bool)
        full[top:bottom, left:right] = mask
        ious.append(((full & ground_truth).sum() / (full | ground_truth).sum().clamp(min=1)).item())
    return ious


def test_targets_equal_a_slow_version_for_objects_that_leave_their_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 4, (4, 4), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
    numbers = numbers.roll(3, 0).to(torch.uint8)
    masks = MapMasks(numbers, torch.tensor([1, 2, 3], dtype=torch.uint8))
    image = build_image(masks[torch.tensor([0, 1, 1, 2])], [(0, 0), (5, 9), (20, 24), (11, 3)])
    logits = torch.randn(4, SIDE, SIDE, generator=generator)
    expected = compute_slow_ious(logits > 0, image)
    assert sum(0 < iou < 1 for iou in expected) == 2
    for each in (image.gt_masks, BitMasks(image.gt_masks.tensor)):
        image.gt_masks = each
        assert compute_mask_iou_targets(logits, [EMPTY, image]).tolist() == pytest.approx(expected)


def test_the_target_of_a_polygon_counts_what_is_outside_the_box() -> None:
    """A square of 16 x 8 pixels, of which the box holds the left half. The mask covers the left half of the box.

    IoU = 32 / (32 + 128 - 32).
    """
    image = build_image(PolygonMasks([[[4, 4, 20, 4, 20, 12, 4, 12]]]), [(4, 4)])
    logits = torch.full((1, SIDE, SIDE), -1.0)
    logits[:, :, :4] = 1
    assert compute_mask_iou_targets(logits, [image]).tolist() == pytest.approx([0.25])
    assert compute_mask_iou_targets(-torch.ones(1, SIDE, SIDE), [image]).tolist() == [0]
    assert compute_mask_iou_targets(torch.zeros(0, SIDE, SIDE), [EMPTY]).tolist() == []


def test_the_loss_leaves_out_masks_without_overlap() -> None:
    """(0.5 * 0.2^2 + 0.5 * 0.4^2) / 2 = 0.05; the third target is 0."""
    ious = torch.tensor([0.7, 0.1, 0.9], requires_grad=True)
    loss = mask_iou_loss(ious, torch.tensor([0.5, 0.5, 0.0]))
    assert loss.item() == pytest.approx(0.05)
    for nothing in (mask_iou_loss(ious, torch.zeros(3)), mask_iou_loss(ious[:0], torch.zeros(0))):
        nothing.backward()
        assert nothing.item() == 0
    assert ious.grad.tolist() == [0, 0, 0]


def build_scoring(**values: Any) -> tuple[Any, Any]:
    """(the model with the mask scores, Mask R-CNN's with the same weights)."""
    register_models()
    torch.manual_seed(0)
    model = build_model(small_config("PanopticRCNN", **SCORING | values))
    torch.nn.init.normal_(model.roi_heads.mask_head.mask_iou_head.predictor.weight, std=0.1)
    plain_values = SCORING | values | {"MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead"}
    plain = build_model(small_config("PanopticRCNN", **plain_values))
    incompatible = plain.load_state_dict(model.state_dict(), strict=False)  # Mask R-CNN's names
    assert incompatible.missing_keys == []
    assert all(".mask_iou_head." in key for key in incompatible.unexpected_keys)
    return model, plain


@pytest.mark.parametrize("agnostic", [False, True])
def test_scores_are_multiplied_by_the_iou_of_the_class_and_masks_stay(agnostic: bool) -> None:
    model, plain = build_scoring(MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=agnostic)
    seen: list[torch.Tensor] = []
    model.roi_heads.mask_head.mask_iou_head.register_forward_hook(lambda _module, _inputs, ious: seen.append(ious))
    with torch.no_grad():
        scored, expected = (each.eval().inference(images(), do_postprocess=False)[0] for each in (model, plain))
    ious = seen[0].split([len(image) for image in scored])
    assert any(0 < iou < 1 for iou in seen[0].flatten().tolist())
    for image, image_ious, plain_image in zip(scored, ious, expected, strict=True):
        assert torch.equal(image.pred_masks, plain_image.pred_masks)
        of_class = [
            max(0.0, min(1.0, row[k])) for row, k in zip(image_ious.tolist(), image.pred_classes.tolist(), strict=True)
        ]
        assert image.scores.tolist() == pytest.approx(
            [a * b for a, b in zip(plain_image.scores.tolist(), of_class, strict=True)]
        )


def test_losses_and_their_weights() -> None:
    losses = {}
    for name, values in {
        "plain": {},
        "instances": {"MODEL__PANOPTIC_FPN__INSTANCE_LOSS_WEIGHT": 0.5},
        "own": {"MODEL__ROI_MASK_HEAD__MASK_IOU__LOSS_WEIGHT": 0.5},
    }.items():
        model, plain = build_scoring(**values)
        for key, each in ((name, model), (f"{name} without", plain)):
            torch.manual_seed(0)
            with EventStorage():
                losses[key] = each.train()(targets(images()))
        assert losses[name].keys() - losses[f"{name} without"].keys() == {"loss_mask_iou"}
        assert torch.equal(losses[name]["loss_mask"], losses[f"{name} without"]["loss_mask"])
    expected = losses["plain"]["loss_mask_iou"]
    assert expected > 0
    for name in ("instances", "own"):
        torch.testing.assert_close(losses[name]["loss_mask_iou"], expected * 0.5)
    losses["plain"]["loss_mask_iou"].backward()


def test_a_batch_without_objects_has_losses_of_zero_that_touch_every_weight() -> None:
    model, _ = build_scoring()
    batch = targets(images())
    for sample in batch:
        sample["instances"] = sample["instances"][:0]
    with EventStorage():
        losses = model.train()(batch)
    assert losses["loss_mask"] == losses["loss_mask_iou"] == 0
    (losses["loss_mask"] + losses["loss_mask_iou"]).backward()
    assert all(weight.grad is not None for weight in model.roi_heads.mask_head.parameters())
