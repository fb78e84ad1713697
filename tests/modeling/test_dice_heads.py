"""The Dice losses."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from segkit.modeling import register_models
from segkit.modeling.losses import dice_loss
from tests.helpers.small_models import images, small_config, targets


def test_dice_of_half_a_mask() -> None:
    """P covers 2 pixels, G 4 of which 2 are P's: 1 - (2*2 + 1) / (2 + 4 + 1) = 2/7; a perfect row costs 0."""
    ground_truth = torch.tensor([[1.0, 1, 1, 1, 0]])
    assert dice_loss(torch.tensor([[1.0, 1, 0, 0, 0]]), ground_truth).item() == pytest.approx(2 / 7)
    assert dice_loss(ground_truth, ground_truth).item() == 0


def test_dice_ignores_absent_classes_and_accepts_no_class() -> None:
    rows = torch.tensor([[1.0, 0], [1.0, 0]])
    ground_truth = torch.tensor([[1.0, 0], [0.0, 1]])
    assert dice_loss(rows, ground_truth, torch.tensor([True, False])).item() == 0
    assert dice_loss(torch.zeros(0, 4), torch.zeros(0, 4)).item() == 0


def test_dice_losses_are_added_and_parameter_names_stay() -> None:
    register_models()
    torch.manual_seed(0)
    plain_cfg = small_config("PanopticRCNN")
    cfg = plain_cfg.clone()
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = ["cross_entropy", "dice"]
    cfg.MODEL.ROI_MASK_HEAD.NAME = "DiceMaskHead"
    model, plain = build_model(cfg), build_model(plain_cfg)
    model.load_state_dict(plain.state_dict(), strict=True)
    losses = []
    for each in (model, plain):
        torch.manual_seed(0)
        with EventStorage():
            losses.append(each.train()(targets(images())))
    extra = set(losses[0]) - set(losses[1])
    assert extra == {"loss_sem_seg_dice", "loss_mask_dice"}
    assert all(0 < losses[0][name].item() < 1 for name in extra)
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[1])
    losses[0]["loss_sem_seg_dice"].backward()
    assert model.sem_seg_head.predictor.weight.grad.abs().sum() > 0
    assert torch.equal(model.eval()(images(1))[0]["sem_seg"], plain.eval()(images(1))[0]["sem_seg"])


def test_the_weights_of_masks_and_of_instances_scale_the_dice_loss() -> None:
    register_models()
    losses = []
    for values in ({}, {"MODEL__PANOPTIC_FPN__INSTANCE_LOSS_WEIGHT": 0.5}, {"MODEL__ROI_MASK_HEAD__DICE_WEIGHT": 0.5}):
        torch.manual_seed(0)
        model = build_model(small_config("PanopticRCNN", MODEL__ROI_MASK_HEAD__NAME="DiceMaskHead", **values))
        torch.manual_seed(0)
        with EventStorage():
            losses.append(model.train()(targets(images())))
    for scaled in losses[1:]:
        torch.testing.assert_close(scaled["loss_mask_dice"], losses[0]["loss_mask_dice"] * 0.5)
    torch.testing.assert_close(losses[1]["loss_mask"], losses[0]["loss_mask"] * 0.5)
