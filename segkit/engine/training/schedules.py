"""The schedule of the learning rate, and its scaling to the batch."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler

from segkit.engine.training.two_stage import TWO_STAGE, build_two_stage
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

logger = logging.getLogger(__name__)

POLY = "WarmupPolyLR"
MAX_FACTOR = 1000  # between the batch and SOLVER.REFERENCE_BATCH: Goyal et al. 2017 went to 32
SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", POLY, TWO_STAGE)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Build SOLVER.LR_SCHEDULER_NAME: one of Detectron2's, WarmupPolyLR, or TwoStageWarmupPolyLR.

    WarmupPolyLR: BASE_LR * (1 - iteration / MAX_ITER) ** POLY_LR_POWER (Chen et al. 2017, DeepLab) after the warm-up,
    at least BASE_LR * POLY_LR_CONSTANT_ENDING. TwoStageWarmupPolyLR: see `TwoStagePoly`.

    Args:
        cfg: config with segkit's keys.
        optimizer: whose learning rates it sets.

    Returns:
        A scheduler of torch; each learning rate follows from the config and the number of the iteration.

    Raises:
        ConfigError: the name is unknown, BASE_LR_END is not in [0, BASE_LR], or STEPS or WARMUP_METHOD are invalid.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME not in SCHEDULES:
        remedy = suggest(solver.LR_SCHEDULER_NAME, SCHEDULES, f"choose one of {', '.join(SCHEDULES)}")
        raise ConfigError(f"SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME!r} is unknown", remedy=remedy)
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        problem = f"expected SOLVER.BASE_LR_END in [0, BASE_LR = {solver.BASE_LR}], got {solver.BASE_LR_END}"
        raise ConfigError(problem, remedy="set it to 0, Detectron2's default")
    if solver.LR_SCHEDULER_NAME == TWO_STAGE:
        return build_two_stage(solver, optimizer)
    try:
        return (
            _build_poly(solver, optimizer)
            if solver.LR_SCHEDULER_NAME == POLY
            else build_detectron2_scheduler(cfg, optimizer)
        )
    except (AssertionError, IndexError, TypeError, ValueError) as error:  # of fvcore's schedules
        values = ", ".join(f"{key} {solver[key]}" for key in ("MAX_ITER", "STEPS", "NUM_DECAYS", "WARMUP_METHOD"))
        problem = f"{solver.LR_SCHEDULER_NAME} is not possible with SOLVER.{values} ({error})"
        remedy = "give rising STEPS, or NUM_DECAYS, below MAX_ITER, and the warm-up linear or constant"
        raise ConfigError(problem, remedy=remedy) from error


def scale_schedule(cfg: CfgNode, processes: int) -> CfgNode:
    """Scale the schedule to the batch, by SOLVER.REFERENCE_BATCH or Detectron2's SOLVER.REFERENCE_WORLD_SIZE.

    With k * REFERENCE_BATCH images, BASE_LR and BASE_LR_END are multiplied by k (Goyal et al. 2017), and MAX_ITER,
    STEPS, WARMUP_ITERS, BACKBONE_WARMUP_ITERS, CHECKPOINT_PERIOD and EVAL_PERIOD divided by k: the
    training sees as many images. Then REFERENCE_BATCH becomes the batch, so that a scaled config is not scaled again.
    REFERENCE_WORLD_SIZE scales IMS_PER_BATCH too, to keep the images of each process, see
    `DefaultTrainer.auto_scale_workers`.

    Args:
        cfg: config with segkit's keys.
        processes: number of processes.

    Returns:
        The config itself if nothing is to be scaled, otherwise a copy.

    Raises:
        ConfigError: both references are given, the reference does not divide the batch, or is no likely batch.
    """
    solver = cfg.SOLVER
    batch, reference, world_size = solver.IMS_PER_BATCH, solver.REFERENCE_BATCH, solver.REFERENCE_WORLD_SIZE
    if reference > 0 and world_size > 0:
        problem = "SOLVER.REFERENCE_BATCH and SOLVER.REFERENCE_WORLD_SIZE both scale the schedule"
        raise ConfigError(problem, remedy="set one of them to 0")
    if world_size > 0 and batch % world_size:
        problem = f"SOLVER.REFERENCE_WORLD_SIZE {world_size} does not divide SOLVER.IMS_PER_BATCH {batch}"
        raise ConfigError(problem, remedy="set it to the number of processes that the config is for")
    if world_size > 0:
        return DefaultTrainer.auto_scale_workers(cfg, processes)
    if reference > 0 and not 1 / MAX_FACTOR <= batch / reference <= MAX_FACTOR:
        problem = (
            f"SOLVER.REFERENCE_BATCH {reference} is more than {MAX_FACTOR} times away from SOLVER.IMS_PER_BATCH {batch}"
        )
        raise ConfigError(
            problem, remedy="set it to the images of a step that the config is made for, 16 for most recipes"
        )
    return _scale(cfg, batch / reference) if reference > 0 and reference != batch else cfg


class _PolynomialDecay(PolynomialDecayParamScheduler):
    """It ends at `least`."""

    def __init__(self, base_value: float, power: float, least: float) -> None:
        super().__init__(base_value, power)
        self.least = least

    def __call__(self, where: float) -> float:
        return max(super().__call__(where), self.least)


def _build_poly(solver: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    multiplier = WarmupParamScheduler(
        _PolynomialDecay(1.0, solver.POLY_LR_POWER, solver.POLY_LR_CONSTANT_ENDING),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=solver.MAX_ITER)


def _scale(cfg: CfgNode, factor: float) -> CfgNode:
    scaled, is_frozen = cfg.clone(), cfg.is_frozen()
    scaled.defrost()
    solver = scaled.SOLVER
    solver.REFERENCE_BATCH = solver.IMS_PER_BATCH
    solver.BASE_LR, solver.BASE_LR_END = solver.BASE_LR * factor, solver.BASE_LR_END * factor
    for node, key in ((solver, "MAX_ITER"), (solver, "CHECKPOINT_PERIOD"), (scaled.TEST, "EVAL_PERIOD")):
        if node[key] > 0:  # 0: no period
            node[key] = max(1, round(node[key] / factor))
    for key in ("WARMUP_ITERS", "BACKBONE_WARMUP_ITERS"):
        solver[key] = round(solver[key] / factor)
    solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
    text = "the schedule is scaled from %d to %d images a step: BASE_LR %g, MAX_ITER %d, STEPS %s, WARMUP_ITERS %d"
    values = solver.BASE_LR, solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS
    logger.info(text, cfg.SOLVER.REFERENCE_BATCH, solver.IMS_PER_BATCH, *values)
    if is_frozen:
        scaled.freeze()
    return scaled
