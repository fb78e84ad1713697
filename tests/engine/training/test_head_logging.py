"""Detectron2's heads without logging: equal losses and draws, fewer synchronisations, and only known functions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads import fast_rcnn, mask_head
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from segkit.engine.training import head_logging
from segkit.engine.training.head_logging import heads_logging
from segkit.engine.training.synchronisations import count_synchronisations
from tests.helpers.small_training import build_config, train

LOGGED = {"rpn/num_pos_anchors", "roi_head/num_fg_samples", "fast_rcnn/cls_accuracy", "mask_rcnn/accuracy"}


def build_model(toy_folder: Path, output: Path, **values: Any) -> torch.nn.Module:
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    model: torch.nn.Module = build_model(build_config(toy_folder, output, **values))
    return model.train()


def build_sample(objects: int) -> dict[str, Any]:
    """An image of 64 x 64 with some discs."""
    generator = torch.Generator().manual_seed(objects)
    instances = Instances((64, 64))
    corners = torch.randint(0, 32, (objects, 2), generator=generator)
    masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
    for mask, (left, top) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + 30, left : left + 20] = True
    instances.gt_boxes = Boxes(torch.cat([corners, corners + torch.tensor([20, 30])], dim=1).float().reshape(-1, 4))
    instances.gt_classes = torch.arange(objects) % 2
    instances.gt_masks = BitMasks(masks)
    image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    sem_seg = torch.zeros(64, 64, dtype=torch.int64)
    return {"image": image, "instances": instances, "sem_seg": sem_seg, "height": 64, "width": 64}


def run(model: torch.nn.Module, batch: list[dict[str, Any]], enabled: bool) -> tuple[dict[str, Any], Any, Any, int]:
    """The losses, the gradients, what was logged, and the number of synchronisations."""
    torch.manual_seed(1)
    model.zero_grad()
    with EventStorage() as storage, heads_logging(enabled), count_synchronisations("cpu") as counts:
        losses = model(batch)
    torch.stack([*losses.values()]).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, storage.latest(), sum(counts.values())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"MODEL__ROI_HEADS__NAME": "CascadeROIHeads", "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True},
        {"MODEL__ROI_MASK_HEAD__NAME": "DiceMaskHead", "MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK": True},
    ],
)
def test_losses_gradients_and_draws_are_equal(toy_folder: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    model = build_model(toy_folder, tmp_path, **values)
    for objects in ((3, 1), (2, 0), (0, 0)):
        batch = [build_sample(count) for count in objects]
        losses, gradients, logged, waits = run(model, batch, enabled=True)
        quiet_losses, quiet_gradients, quiet_logged, quiet_waits = run(model, batch, enabled=False)
        torch.testing.assert_close(quiet_losses, losses, rtol=0, atol=0)
        torch.testing.assert_close(quiet_gradients, gradients, rtol=0, atol=0)
        assert logged
        assert quiet_logged == {}
        assert quiet_waits <= waits - 4  # two of the RPN, one or more of each image


def test_the_log_has_the_numbers_once_a_period(toy_folder: Path, tmp_path: Path) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__MAX_ITER=4, SOLVER__LOG_PERIOD=2)
    trainer = train(cfg)
    assert trainer.storage.latest().keys() >= LOGGED
    for name in LOGGED:
        assert [iteration for _, iteration in trainer.storage.history(name).values()] == [1, 3]


def test_images_are_drawn_at_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(head_logging, "_compute_logged_mask_loss", lambda *arguments: calls.append(arguments[-1]))
    logits, empty = torch.zeros(0, 1, 4, 4), [Instances((8, 8), gt_classes=torch.zeros(0))]
    with heads_logging(False):
        for iteration in range(5):
            with EventStorage(iteration):
                mask_head.mask_rcnn_loss(logits, empty, 2)
    assert calls == [2, 2, 2]


def test_unknown_functions_stay(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def log_other_stats(*_arguments: Any) -> str:
        return "a user's"

    monkeypatch.setattr(fast_rcnn, "_log_classification_stats", log_other_stats)
    head_logging._find_known.cache_clear()
    losses = RPN.losses
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with heads_logging(False):
                assert fast_rcnn._log_classification_stats() == "a user's"
                assert RPN.losses is head_logging.compute_rpn_losses
    head_logging._find_known.cache_clear()
    assert RPN.losses is losses
    assert [record.getMessage() for record in caplog.records if "known" in record.getMessage()] == [
        "Detectron2's detectron2.modeling.roi_heads.fast_rcnn._log_classification_stats is not the known one: it reads "
        "its numbers for the log at each step"
    ]
