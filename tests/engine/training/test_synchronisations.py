"""How often a training step would make the host wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segkit.config import load_config
from segkit.engine.training.ema import WeightEMA
from segkit.engine.training.faults import RunningStatistics
from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.losses import LossSums
from segkit.engine.training.optimizers import build_optimizer
from segkit.engine.training.step import TrainingStep
from segkit.engine.training.synchronisations import count_synchronisations

CPU = torch.device("cpu")
CLIPPING = "SOLVER.CLIP_GRADIENTS.ENABLED True SOLVER.CLIP_GRADIENTS.CLIP_TYPE"


class Network(torch.nn.Module):
    """Two losses, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = self.layers(batch)
        return {"loss_square": error.square().mean(), "loss_absolute": error.abs().mean()}


def build_training(options: str) -> tuple[Callable[[int], None], LossSums, torch.Tensor]:
    """A function that takes a step with all that the loop does beside the model, the losses, and a weight."""
    cfg = load_config("", ["SOLVER.BASE_LR", "0.1", *options.split()])
    model, flags, losses = Network(), FlagExchange(CPU), LossSums()
    step = TrainingStep(cfg, model, build_optimizer(cfg, model), flags)
    statistics, ema = RunningStatistics(model, flags.lag), WeightEMA(0.9)
    checkpointer: Any = SimpleNamespace(model=model)
    ema.trainer = SimpleNamespace(checkpointer=checkpointer, start_iter=0, last_step=None)
    ema.before_train()
    parts = [torch.rand(4, 2), torch.rand(4, 2)]

    def take_step(iteration: int) -> None:
        statistics.keep(iteration)
        ema.trainer.last_step = result = step(iteration, parts)
        losses.add(result.losses)
        ema.after_step()

    return take_step, losses, model.layers[0].weight


@pytest.mark.parametrize(
    "options",
    [
        "SOLVER.OPTIMIZER SGD",
        "SOLVER.OPTIMIZER ADAMW",
        f"{CLIPPING} value",
        f"{CLIPPING} norm",
        f"{CLIPPING} full_model",
        "SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE bfloat16",
        "SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE float16",
    ],
)
def test_the_loop_adds_none(options: str) -> None:
    take_step, losses, weight = build_training(options)
    before = weight.detach().clone()
    with count_synchronisations(CPU) as counts:
        for iteration in range(3):
            take_step(iteration)
    assert counts == {}
    assert not torch.equal(before, weight)
    with count_synchronisations(CPU) as counts:
        assert losses.read()["total_loss"] > 0
    assert counts == {"tolist": 1}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, mask: x.detach().sum().item(), {"_local_scalar_dense": 1}),
        (lambda x, mask: [bool(mask.any()), float(x.detach()[0]), int(mask.sum())], {"_local_scalar_dense": 3}),
        (lambda x, mask: x[mask], {"index": 1}),
        (lambda x, mask: x[torch.tensor([0, 1])], {}),
        (lambda x, mask: x.__setitem__(mask, x[:2].clone()), {"index_put_": 1}),
        (lambda x, mask: x.__setitem__(mask, 0.0), {}),  # filled on the device
        (lambda x, mask: torch.where(mask), {"nonzero": 1}),
        (lambda x, mask: (x * 2).sum().backward(), {}),
        (lambda x, mask: (x[mask] * 2).sum().backward(), {"index": 1, "index_put": 1}),  # its gradient too
        (lambda x, mask: [x.detach().numpy(), x.tolist(), x.cpu()], {"numpy": 1, "tolist": 1, "cpu": 1}),
        (lambda x, mask: torch.repeat_interleave(x, torch.tensor([1, 0, 2, 0])), {"repeat_interleave": 1}),
        (lambda x, mask: torch.repeat_interleave(x, torch.tensor([1, 0, 2, 0]), output_size=3), {}),
    ],
)
def test_what_would_wait_is_counted(function: Callable[..., Any], expected: dict[str, int]) -> None:
    x, mask = torch.arange(4.0).requires_grad_(), torch.tensor([False, True, True, False])
    x = x.clone()
    with count_synchronisations(CPU) as counts:
        function(x, mask)
    assert counts == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_its_own_waits() -> None:
    x = torch.arange(4.0, device="cuda")
    with count_synchronisations("cuda") as counts:
        (x * 2).sum()
        x.sum().item()
        (x > 1).nonzero()
    assert sum(counts.values()) == 2
    assert all(place.startswith("test_synchronisations.py:") for place in counts)
