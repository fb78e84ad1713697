"""Losses of semantic heads: against slow versions, Detectron2's, and numbers derived by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.projects.deeplab.loss import DeepLabCE
from torch.nn import functional as F

from segkit.modeling.losses import dice_loss
from segkit.modeling.semantic_losses import LOSSES, SemanticLosses
from segkit.utils.errors import ConfigError

IGNORED = 255
CLASSES = 4
WEIGHTS = [0.5, 2.0, 1.0, 3.0]
EVERY = [{"name": name} for name in LOSSES]


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of two small images. Class 3 is absent, and a fifth of the pixels has no label."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, 6, 5, generator=generator, dtype=torch.float64) * 2
    targets = torch.randint(0, 3, (2, 6, 5), generator=generator)
    return logits.float().requires_grad_(), targets.where(torch.rand(2, 6, 5, generator=generator) > 0.2, IGNORED)


def compute(entry: Any, logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
    (loss,) = SemanticLosses([entry], **options)(logits, targets).values()
    return loss


def labelled_pixels(logits: torch.Tensor, targets: torch.Tensor) -> list[tuple[list[float], int]]:
    """(probabilities, label) of each labelled pixel."""
    probs = logits.softmax(dim=1).movedim(1, -1).reshape(-1, CLASSES).tolist()
    return [(p, label) for p, label in zip(probs, targets.flatten().tolist(), strict=True) if label != IGNORED]


def test_cross_entropy_with_smoothing_and_weights_against_the_formula() -> None:
    logits, targets = sample()
    pixels = labelled_pixels(logits, targets)
    plain = sum(-math.log(p[label]) for p, label in pixels) / len(pixels)
    assert compute("cross_entropy", logits, targets).item() == pytest.approx(plain, rel=1e-5)
    # Every class gets 0.2 / 4 of the target, the label 0.8 besides; each class's part is weighted.
    total = sum(
        -0.8 * WEIGHTS[label] * math.log(p[label])
        - 0.05 * sum(w * math.log(q) for w, q in zip(WEIGHTS, p, strict=True))
        for p, label in pixels
    )
    smoothed = {"name": "cross_entropy", "label_smoothing": 0.2, "class_weights": WEIGHTS}
    expected = total / sum(WEIGHTS[label] for _, label in pixels)
    assert compute(smoothed, logits, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("top_k", [0.2, 1.0])
def test_hard_pixel_mining_is_detectron2s(weights: list[float] | None, top_k: float) -> None:
    logits, targets = sample()
    entry = {"name": "hard_pixel_mining", "top_k": top_k, "class_weights": weights}
    theirs = DeepLabCE(IGNORED, top_k, None if weights is None else torch.tensor(weights))
    expected = theirs(logits, targets)
    assert torch.equal(compute(entry, logits, targets), expected)


def test_focal_against_the_formula() -> None:
    logits, targets = sample()
    pixels = labelled_pixels(logits, targets)
    total = sum(-WEIGHTS[label] * (1 - p[label]) ** 1.5 * math.log(p[label]) for p, label in pixels)
    entry = {"name": "focal", "gamma": 1.5, "class_weights": WEIGHTS}
    assert compute(entry, logits, targets).item() == pytest.approx(total / len(pixels), rel=1e-5)
    no_exponent = compute({"name": "focal", "gamma": 0}, logits, targets)
    assert torch.allclose(no_exponent, compute("cross_entropy", logits, targets))


def test_dice_is_the_mean_over_the_classes_that_are_there() -> None:
    logits, targets = sample()
    pixels = labelled_pixels(logits, targets)
    losses = []
    for c in range(3):
        probs, gt = torch.tensor([[p[c] for p, _ in pixels]]), torch.tensor([[float(t == c) for _, t in pixels]])
        losses.append(dice_loss(probs, gt).item())
    assert compute("dice", logits, targets).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def slow_lovasz(errors: list[float], is_class: list[bool]) -> float:
    """The Lovász extension of the Jaccard loss: errors by falling size, times what each adds to the loss."""

    def jaccard(wrong: set[int]) -> float:
        ground_truth = {i for i, value in enumerate(is_class) if value}
        return 1 - len(ground_truth - wrong) / len(ground_truth | wrong)

    loss, wrong = 0.0, set[int]()
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        before = jaccard(wrong)
        wrong.add(i)
        loss += errors[i] * (jaccard(wrong) - before)
    return loss


def test_lovasz_against_the_definition_over_sets() -> None:
    logits, targets = sample()
    pixels = labelled_pixels(logits, targets)
    losses = []
    for c in range(3):  # class 3 has no pixel
        errors = [1 - p[c] if label == c else p[c] for p, label in pixels]
        losses.append(slow_lovasz(errors, [label == c for _, label in pixels]))
    assert compute("lovasz", logits, targets).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_lovasz_of_sure_predictions_is_1_minus_iou() -> None:
    """4 pixels of class 0 and 2 of class 1, of which one is predicted as 0: IoU 4/5 and 1/2."""
    predicted, targets = torch.tensor([[[0, 0, 0, 0, 0, 1]]]), torch.tensor([[[0, 0, 0, 0, 1, 1]]])
    logits = F.one_hot(predicted, 2).movedim(-1, 1).float() * 100
    assert compute("lovasz", logits, targets).item() == pytest.approx((1 / 5 + 1 / 2) / 2)


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry["name"])
def test_ignored_pixels_change_nothing_and_get_no_gradient(entry: dict[str, Any]) -> None:
    if entry["name"] == "hard_pixel_mining":
        entry = {**entry, "top_k": 0.1}  # of all pixels: fewer than have a label
    logits, targets = sample()
    loss = compute(entry, logits, targets)
    loss.backward()
    ignored = (targets == IGNORED)[:, None].expand_as(logits)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[ignored].any()
    other = compute(entry, logits.detach().masked_fill(ignored, 7.0), targets)
    assert torch.allclose(other, loss.detach())


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry["name"])
def test_without_labelled_pixels_loss_and_gradient_are_0(entry: dict[str, Any]) -> None:
    logits, targets = sample()
    loss = compute(entry, logits, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_weights_strides_and_names() -> None:
    logits, targets = sample()
    large = targets.repeat_interleave(4, 1).repeat_interleave(4, 2)
    losses = SemanticLosses(["cross_entropy", {"name": "dice", "weight": 3}], stride=4, weight=0.5)(logits, large)
    enlarged = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.equal(losses["loss_sem_seg"], 0.5 * F.cross_entropy(enlarged, large, ignore_index=IGNORED))
    assert torch.allclose(losses["loss_sem_seg_dice"], 1.5 * compute("dice", enlarged, large))
    # Logits of padded images reach further than the targets.
    cropped = SemanticLosses(["cross_entropy"], stride=4)(logits, large[:, :22, :17])
    assert torch.equal(
        cropped["loss_sem_seg"], F.cross_entropy(enlarged[..., :22, :17], large[:, :22, :17], ignore_index=IGNORED)
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["dise"], r"LOSSES: expected names of losses.*got 'dise'; did you mean 'dice'"),
        ([3], "expected names of losses"),
        ([{"weight": 1.0}], "expected names of losses"),
        ([{"name": "focal", "gama": 2}], r"focal: the option 'gama' is unknown; did you mean 'gamma'"),
        ([{"name": "dice", "gamma": 2}], "dice: the option 'gamma' is unknown; its options are weight"),
        ([{"name": "dice", "weight": -1}], "expected weight 0 or more, got -1"),
        ([{"name": "focal", "gamma": "two"}], "focal: expected numbers"),
        ([{"name": "cross_entropy", "label_smoothing": 1.0}], r"expected label_smoothing in \[0, 1\), got 1.0"),
        ([{"name": "hard_pixel_mining", "top_k": 0}], r"expected top_k in \(0, 1\], got 0"),
        ([{"name": "cross_entropy", "class_weights": [1, 2]}], "expected 4 class_weights, got 2"),
        ([{"name": "cross_entropy", "class_weights": [1, 1, 1, -1]}], "expected class_weights of 0 or more"),
        ([{"name": "focal", "class_weights": "median_frequency"}], "are to be computed from a training dataset"),
        (["cross_entropy", "hard_pixel_mining"], "two entries give loss_sem_seg"),
    ],
)
def test_wrong_entries_are_named(entries: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SemanticLosses(entries, classes=CLASSES)
