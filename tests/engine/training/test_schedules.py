"""Learning rates by iteration, and their scaling to the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segkit.config import load_config
from segkit.engine.training.optimizers import build_optimizer
from segkit.engine.training.schedules import build_lr_scheduler, scale_schedule
from segkit.engine.training.states import load_scheduler
from segkit.utils.errors import ConfigError


def read(options: str) -> Any:
    return load_config(opts=options.split())


@pytest.mark.parametrize("ending", [0.0, 0.25])
def test_the_poly_schedule_with_warm_up(ending: float) -> None:
    options = "SOLVER.LR_SCHEDULER_NAME WarmupPolyLR SOLVER.POLY_LR_POWER 2.0 SOLVER.MAX_ITER 10 SOLVER.WARMUP_ITERS 2"
    options = f"{options} SOLVER.POLY_LR_CONSTANT_ENDING {ending}"
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": 4.0}], lr=1.0)
    scheduler = build_lr_scheduler(read(f"{options} SOLVER.WARMUP_FACTOR 0.0"), optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # From 0 in a line to 4 * 0.8 ** 2 = 2.56 at iteration 2, then 4 * (1 - i / 10) ** 2, but not below 4 * ending.
    assert rates == pytest.approx([0.0, 1.28, *(4 * max((1 - i / 10) ** 2, ending) for i in range(2, 10))])


TWO_STAGE = """SOLVER.LR_SCHEDULER_NAME TwoStageWarmupPolyLR SOLVER.MAX_ITER 10 SOLVER.WARMUP_ITERS 2
    SOLVER.BACKBONE_WARMUP_ITERS 4 SOLVER.WARMUP_FACTOR 0.0 SOLVER.POLY_LR_POWER 2.0 SOLVER.BASE_LR 1.0"""


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


def test_the_backbone_warms_up_after_the_head() -> None:
    model = Model()
    optimizer = build_optimizer(read(TWO_STAGE), model)
    scheduler = build_lr_scheduler(read(TWO_STAGE), optimizer)
    rates: list[list[float]] = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    # The head's rises to iteration 2, then 8 iterations are left; the backbone's rises from 2 to 6, and 4 are left.
    backbone, head = zip(*rates, strict=True)
    assert head == pytest.approx([0, 0.5, *((1 - i / 8) ** 2 for i in range(8))])
    assert backbone == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, *((1 - i / 4) ** 2 for i in range(4))])
    resumed = build_lr_scheduler(read(TWO_STAGE), optimizer)
    load_scheduler(resumed, {}, steps=4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.5625])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("SOLVER.WARMUP_ITERS 6", "is not possible with SOLVER.WARMUP_ITERS 6, BACKBONE_WARMUP_ITERS 4.*MAX_ITER 10"),
        ("SOLVER.WARMUP_METHOD constant", "give a linear warm-up"),
        ("MODEL.FREEZE ['backbone']", "needs a model with a backbone that is trained; set it to WarmupPolyLR"),
    ],
)
def test_wrong_two_stages_are_clear_errors(options: str, message: str) -> None:
    cfg, model = read(f"{TWO_STAGE} {options}"), Model()
    model.backbone.requires_grad_("backbone" not in str(cfg.MODEL.FREEZE))
    with pytest.raises(ConfigError, match=message):
        build_lr_scheduler(cfg, build_optimizer(cfg, model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("SOLVER.LR_SCHEDULER_NAME WarmupPoly", r"'WarmupPoly' is unknown; did you mean 'WarmupPolyLR'\?"),
        ("SOLVER.LR_SCHEDULER_NAME WarmupCosineLR SOLVER.BASE_LR_END 1.0", r"BASE_LR_END in \[0, BASE_LR = 0\.001\]"),
        (
            "SOLVER.STEPS (-1,)",
            r"WarmupMultiStepLR is not possible with SOLVER.MAX_ITER 40000, STEPS \(-1,\),.*; give rising STEPS",
        ),
        ("SOLVER.STEPS ('a',)", r"is not possible with SOLVER.*STEPS \('a',\)"),
        ("SOLVER.LR_SCHEDULER_NAME WarmupStepWithFixedGammaLR SOLVER.MAX_ITER 2", "NUM_DECAYS 3"),
        ("SOLVER.WARMUP_METHOD slow", r"Unknown warmup method: slow.*; .*the warm-up linear or constant"),
    ],
)
def test_wrong_schedules_are_clear_errors(options: str, message: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ConfigError, match=message):
        build_lr_scheduler(read(options), optimizer)


SCHEDULE = """SOLVER.IMS_PER_BATCH 4 SOLVER.BASE_LR 0.02 SOLVER.MAX_ITER 900 SOLVER.STEPS (600,800)
    SOLVER.WARMUP_ITERS 10 SOLVER.BACKBONE_WARMUP_ITERS 20 SOLVER.CHECKPOINT_PERIOD 100 TEST.EVAL_PERIOD 0"""


def test_the_schedule_is_scaled_to_the_batch_once() -> None:
    cfg = read(f"{SCHEDULE} SOLVER.REFERENCE_BATCH 16")
    scaled = scale_schedule(cfg, processes=1)
    # A quarter of the batch: a quarter of the learning rate, four times the iterations.
    solver = scaled.SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (0.005, 3600, (2400, 3200))
    assert (solver.WARMUP_ITERS, solver.BACKBONE_WARMUP_ITERS) == (40, 80)
    assert (solver.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD) == (400, 0)
    assert scale_schedule(scaled, processes=1) is scaled
    assert cfg.SOLVER.BASE_LR == 0.02


def test_detectron2s_reference_keeps_its_meaning() -> None:
    scaled = scale_schedule(read(f"{SCHEDULE} SOLVER.REFERENCE_WORLD_SIZE 2"), processes=4)
    assert (scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.BASE_LR, scaled.SOLVER.MAX_ITER) == (8, 0.04, 450)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "SOLVER.REFERENCE_BATCH 1000000000",
            "REFERENCE_BATCH 1000000000 is more than 1000 times away from SOLVER.IMS_",
        ),
        ("SOLVER.IMS_PER_BATCH 16016 SOLVER.REFERENCE_BATCH 16", "REFERENCE_BATCH 16 is more than 1000 times away"),
        ("SOLVER.REFERENCE_BATCH 16 SOLVER.REFERENCE_WORLD_SIZE 2", "both scale the schedule; set one of them to 0"),
        ("SOLVER.REFERENCE_WORLD_SIZE 3", r"REFERENCE_WORLD_SIZE 3 does not divide SOLVER\.IMS_PER_BATCH 4"),
    ],
)
def test_references_that_contradict_are_clear_errors(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scale_schedule(read(f"{SCHEDULE} {options}"), processes=1)
