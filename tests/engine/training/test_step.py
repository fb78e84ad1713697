"""One step: parts, skipped steps, clipping, types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from segkit.config import load_config
from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.optimizers import build_optimizer, clip_gradients
from segkit.engine.training.step import TrainingStep, select_dtype
from segkit.utils.errors import ConfigError

CPU = torch.device("cpu")


class Linear(torch.nn.Module):
    """Squared error of weight * x; NaN in, NaN out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = batch @ self.weight
        return {"loss_square": error.square().mean(), "loss_root": error.abs().mean()}


def build_step(*options: Any) -> tuple[TrainingStep, Linear, FlagExchange]:
    cfg = load_config("", [str(option) for option in ("SOLVER.BASE_LR", 0.1, *options)])
    model, flags = Linear(), FlagExchange(CPU)
    return TrainingStep(cfg, model, build_optimizer(cfg, model), flags), model, flags


def test_parts_give_the_gradient_of_the_whole_batch() -> None:
    batch = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0], [2.0, 1.0]])
    whole, parts = build_step(), build_step()
    first = whole[0](0, [batch])
    second = parts[0](0, [batch[:2], batch[2:]])
    torch.testing.assert_close(whole[1].weight, parts[1].weight)
    torch.testing.assert_close(first.losses, second.losses)
    assert not torch.equal(whole[1].weight, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(optimizer: str, value: float) -> None:
    step, model, flags = build_step("SOLVER.OPTIMIZER", optimizer)
    good, bad = torch.ones(1, 2), torch.full((1, 2), value)
    reference = build_step("SOLVER.OPTIMIZER", optimizer)
    for iteration, batch in enumerate((bad, good, bad, good)):
        step(iteration, [batch])
    for iteration in range(2):
        reference[0](iteration, [good])
    assert torch.equal(model.weight, reference[1].weight)
    read = flags.read()
    assert [flag.bad_loss for flag in read] == [True, False, True, False]
    assert not any(flag.bad_gradient for flag in read)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    step, model, flags = build_step()
    model.weight.data.zero_()
    model.forward = lambda batch: {"loss": (batch * model.weight).sum().abs().sqrt()}  # type: ignore[method-assign]
    step(0, [torch.ones(2)])  # the root's slope at 0 is infinite
    assert torch.equal(model.weight, torch.zeros(2))
    [flag] = flags.read()
    assert (flag.bad_loss, flag.bad_gradient) == (False, True)


def test_an_optimizer_that_knows_no_flag_is_not_stepped_either() -> None:
    step, model, _ = build_step()
    step.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step.knows_found_inf = False
    step(0, [torch.full((1, 2), float("nan"))])
    assert torch.equal(model.weight, torch.tensor([1.0, 2.0]))
    step(1, [torch.ones(1, 2)])
    assert not torch.equal(model.weight, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("value", 1.0, [[1.0, -1.0], [0.5]]),
        ("norm", 2.5, [[1.5, -2.0], [0.5]]),  # the norm of (3, -4) is 5, of each tensor by itself
        ("full_model", 2.5, None),
    ],
)
def test_gradients_are_clipped_by_each_rule(kind: str, value: float, expected: list[list[float]] | None) -> None:
    cfg = load_config("", ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", kind])
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = value
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, -4.0]), torch.tensor([0.5])
    norm = clip_gradients(cfg, parameters)
    assert norm.item() == pytest.approx(25.25**0.5)
    factor = value / 25.25**0.5
    expected = expected or [[3 * factor, -4 * factor], [0.5 * factor]]
    for parameter, values in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(values), rtol=1e-5, atol=1e-5)


def test_unknown_names_are_refused() -> None:
    def options(*words: str) -> CfgNode:
        return load_config("", [*words])

    with pytest.raises(ConfigError, match="did you mean 'ADAM"):
        build_optimizer(options("SOLVER.OPTIMIZER", "ADAMX"), Linear())
    with pytest.raises(ConfigError, match="CLIP_TYPE 'l2' is unknown"):
        clip_gradients(options("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "l2"), [])
    with pytest.raises(ConfigError, match="DTYPE 'half' is unknown"):
        select_dtype(options("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "half"), CPU)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_skips(name: str) -> None:
    step, model, flags = build_step("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", name)
    step.scaler._init_scale = 8.0
    result = step(0, [torch.ones(2, 2)])
    assert model.weight.dtype == torch.float32
    assert torch.isfinite(model.weight).all()
    after_one = model.weight.detach().clone()
    assert not torch.equal(after_one, torch.tensor([1.0, 2.0]))
    assert result.losses["loss_square"].item() == pytest.approx(9, rel=0.02)
    step(1, [torch.full((1, 2), float("nan"))])
    assert torch.equal(model.weight, after_one)
    assert [flag.bad_loss for flag in flags.read()] == [False, True]
