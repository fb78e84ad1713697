"""Matching and losses of mask transformers, against obvious versions, scipy and transformers."""

import itertools
import logging
import sys

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from segkit.config import load_config
from segkit.modeling.point_sampling import SampledMasks
from segkit.modeling.queries import QueryCriterion, QueryOutputs, QueryTargets
from segkit.modeling.queries.matching import assign
from tests.helpers.same_points import SamePoints, draw_same_points

CLASSES, QUERIES, POINTS = 4, 6, 16
WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}


def draw_layers(count: int = 3, images: int = 2, scale: float = 1.0) -> list[QueryOutputs]:
    return [
        QueryOutputs(
            (scale * torch.randn(images, QUERIES, CLASSES + 1)).requires_grad_(),
            (scale * torch.randn(images, QUERIES, 5, 7)).requires_grad_(),
        )
        for _ in range(count)
    ]


def draw_targets(*counts: int) -> list[QueryTargets]:
    return [QueryTargets(torch.randint(0, CLASSES, (n,)), torch.rand(n, 20, 28) > 0.5) for n in counts]


@pytest.fixture
def same_points(monkeypatch: pytest.MonkeyPatch) -> SamePoints:
    return draw_same_points(monkeypatch.setattr)


def compute_slowly(layers: list[QueryOutputs], targets: list[QueryTargets]) -> dict[str, torch.Tensor]:
    """The losses pair by pair, with the points in the order in which the criterion draws them."""
    losses = {}
    objects = max(sum(len(image.class_ids) for image in targets), 1)
    names = ["", *(f"_{index}" for index in range(len(layers) - 1))]
    for name, layer in zip(names, [layers[-1], *layers[:-1]], strict=True):
        class_ids = torch.full((len(targets), QUERIES), CLASSES)
        pairs = []
        for image, (target, points) in enumerate(zip(targets, torch.rand(len(targets), POINTS, 2), strict=True)):
            probs = layer.class_logits[image].softmax(1)
            costs = torch.zeros(QUERIES, len(target.class_ids))
            for q, n in itertools.product(range(QUERIES), range(len(target.class_ids))):
                bce, dice = compare(layer.mask_logits[image, q], target.masks[n], points)
                costs[q, n] = 5 * bce + 5 * dice - 2 * probs[q, target.class_ids[n]]
            for q, n in zip(*linear_sum_assignment(costs.detach()), strict=True):
                class_ids[image, q] = target.class_ids[n]
                pairs.append((image, q, n))
        weights = torch.ones(CLASSES + 1)
        weights[CLASSES] = 0.1
        logs = -layer.class_logits.log_softmax(2).gather(2, class_ids[..., None])[..., 0]
        losses[f"loss_class{name}"] = 2 * (logs * weights[class_ids]).sum() / weights[class_ids].sum()
        candidates = torch.rand(len(pairs), 3 * POINTS, 2)
        others = torch.rand(len(pairs), POINTS - POINTS * 3 // 4, 2)
        parts = []
        for (image, q, n), drawn, other in zip(pairs, candidates, others, strict=True):
            uncertainty = sample(layer.mask_logits[image, q], drawn).abs()
            points = torch.cat([drawn[uncertainty.argsort()[: POINTS * 3 // 4]], other])
            parts.append(compare(layer.mask_logits[image, q], targets[image].masks[n], points))
        losses[f"loss_mask{name}"] = 5 * sum(bce for bce, _ in parts) / objects
        losses[f"loss_dice{name}"] = 5 * sum(dice for _, dice in parts) / objects
    return losses


def sample(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(values[None, None].float(), 2 * points[None, None] - 1, align_corners=False).flatten()


def compare(logits: torch.Tensor, mask: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The binary cross-entropy and the Dice loss of one pair."""
    probs, truth = sample(logits, points).sigmoid(), sample(mask, points)
    bce = -(truth * probs.log() + (1 - truth) * (1 - probs).log()).mean()
    return bce, 1 - (2 * (probs * truth).sum() + 1) / (probs.sum() + truth.sum() + 1)


@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0), (QUERIES + 2, 1)])
def test_losses_and_gradients_equal_those_of_single_pairs(counts: tuple[int, int], same_points: SamePoints) -> None:
    torch.manual_seed(0)
    layers, targets = draw_layers(), draw_targets(*counts)
    losses = QueryCriterion(num_classes=CLASSES, num_points=POINTS)(layers, targets)
    inputs = [tensor for layer in layers for tensor in (layer.class_logits, layer.mask_logits)]
    gradients = torch.autograd.grad(sum(losses.values()), inputs)
    same_points.start_again()
    expected = compute_slowly(layers, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, torch.as_tensor(expected[name]).float(), rtol=1e-4, atol=1e-5)
    slow = torch.autograd.grad(sum(expected.values()), inputs, allow_unused=True)
    for gradient, other in zip(gradients, slow, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if other is None else other)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="transformers 5 needs Python 3.11")
@pytest.mark.parametrize("counts", [(3, 1, 5), (1, 0, 2)])
def test_losses_equal_those_of_transformers(counts: tuple[int, ...], same_points: SamePoints) -> None:
    reference = pytest.importorskip(
        "transformers.models.mask2former.modeling_mask2former", reason="pip install 'segkit[oracle]'"
    )
    torch.manual_seed(1)
    layers, targets = draw_layers(images=3, scale=3.0), draw_targets(*counts)
    losses = QueryCriterion(num_classes=CLASSES, num_points=POINTS)(layers, targets)
    same_points.start_again()
    config = reference.Mask2FormerConfig(num_labels=CLASSES, train_num_points=POINTS)
    *earlier, last = [
        {"masks_queries_logits": layer.mask_logits, "class_queries_logits": layer.class_logits} for layer in layers
    ]
    masks, class_ids = [image.masks.float() for image in targets], [image.class_ids for image in targets]
    expected = reference.Mask2FormerLoss(config, {})(
        **last, mask_labels=masks, class_labels=class_ids, auxiliary_predictions=earlier
    )
    for name, loss in losses.items():
        weight = WEIGHTS[name.split("_")[1]]
        theirs = expected[name.replace("loss_class", "loss_cross_entropy")]
        torch.testing.assert_close(loss, weight * theirs, rtol=1e-4, atol=1e-5)
    assert len(losses) == len(expected) == 9


def test_matches_equal_scipys_for_each_image() -> None:
    rng = np.random.default_rng(0)
    for number in range(250):  # 1000 matrices of whole numbers: most have ties
        counts = rng.integers(0, 9, size=2).tolist()
        costs = rng.integers(0, 4, size=(2, 2, 7, max(*counts, 1))).astype(np.float32)
        matches = assign(costs, counts)
        for layer, image in itertools.product(range(2), range(2)):
            rows, columns = linear_sum_assignment(costs[layer, image][:, : counts[image]])
            queries, objects = matches[layer]
            own = (queries // 7) == image
            assert (queries[own] % 7).tolist() == rows.tolist(), number
            assert (objects[own] - sum(counts[:image])).tolist() == columns.tolist(), number


def test_bits_are_interpolated_as_floats() -> None:
    torch.manual_seed(2)
    masks = [torch.rand(2, 5, 3) > 0.5, torch.rand(1, 5, 3) > 0.5]
    points = torch.rand(4, 30, 2)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.1]])
    rows = torch.tensor([2, 0, 1, 2])
    expected = torch.stack([sample(torch.cat(masks)[row], p) for row, p in zip(rows, points, strict=True)])
    torch.testing.assert_close(SampledMasks(masks).sample(points, rows), expected, rtol=0, atol=1e-6)


def test_one_step_reads_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: reads.append(tuple(tensor.shape)) or copy(tensor))
    monkeypatch.setattr(torch.Tensor, "item", lambda _: pytest.fail("a value was read back"))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda _: pytest.fail("a tensor was read back"))
    QueryCriterion(num_classes=CLASSES, num_points=POINTS)(draw_layers(), draw_targets(2, 3))
    assert reads == [(3, 2, QUERIES, 3)]  # layers, images, queries, objects


def test_objects_are_averaged_over_processes(monkeypatch: pytest.MonkeyPatch, same_points: SamePoints) -> None:
    torch.manual_seed(4)
    layers, targets = draw_layers(1), draw_targets(2, 1)
    criterion = QueryCriterion(num_classes=CLASSES, num_points=POINTS)
    alone = criterion(layers, targets)
    same_points.start_again()
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(6))  # the other process has 6 objects
    losses = criterion(layers, targets)
    for name, scale in (("loss_class", 1), ("loss_mask", 3 / 4.5), ("loss_dice", 3 / 4.5)):
        torch.testing.assert_close(losses[name], alone[name] * scale)


def test_half_precision_is_computed_in_float32(same_points: SamePoints) -> None:
    torch.manual_seed(3)
    layers, targets = draw_layers(1), draw_targets(2, 1)
    criterion = QueryCriterion(num_classes=CLASSES, num_points=POINTS)
    halves = [QueryOutputs(layer.class_logits.bfloat16(), layer.mask_logits.bfloat16()) for layer in layers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion(halves, targets)
    same_points.start_again()
    expected = criterion(
        [QueryOutputs(half.class_logits.float(), half.mask_logits.float()) for half in halves], targets
    )
    assert {name: loss.item() for name, loss in losses.items()} == {n: loss.item() for n, loss in expected.items()}
    assert losses["loss_mask"].dtype == torch.float32


def test_more_objects_than_queries_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    criterion = QueryCriterion(num_classes=CLASSES, num_points=POINTS)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            criterion(draw_layers(1), draw_targets(QUERIES + 2, 1))
    (record,) = caplog.records
    assert "has 8 objects, but the model has 6 queries: 2 objects are not learned" in record.message


def test_an_overflow_is_reported_with_its_layer_and_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    layers = draw_layers()
    with torch.no_grad():
        layers[1].mask_logits[1] = torch.inf
    with caplog.at_level(logging.WARNING):
        losses = QueryCriterion(num_classes=CLASSES, num_points=POINTS)(layers, draw_targets(2, 3))
    (record,) = caplog.records
    assert "decoder layer 1 are not finite for image 1 of the batch" in record.message
    assert 'SOLVER.AMP.DTYPE "bfloat16"' in record.message
    assert not losses["loss_mask_1"].isfinite()  # the trainer skips the step
    assert losses["loss_mask_0"].isfinite()


def test_the_config_gives_mask2formers_weights() -> None:
    cfg = load_config(opts=["MODEL.QUERIES.NUM_CLASSES", str(CLASSES)])
    criterion = QueryCriterion(cfg)
    assert criterion.state_dict()["empty_weight"].tolist() == pytest.approx([1, 1, 1, 1, 0.1])
    assert (criterion.weights, criterion.num_points) == ((2, 5, 5), 12544)
    cfg.MODEL.QUERIES.DEEP_SUPERVISION = False
    cfg.MODEL.QUERIES.NUM_POINTS = 8
    assert {*QueryCriterion(cfg)(draw_layers(), draw_targets(1, 1))} == {"loss_class", "loss_mask", "loss_dice"}
