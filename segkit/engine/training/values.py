"""The numbers of a training's config: those that no training can run with are refused before it begins."""

from __future__ import annotations

import math
from operator import attrgetter

from detectron2.config import CfgNode

from segkit.utils.errors import ConfigError

MAX_SEED = 2**63 - 1
POSITIVE = ("SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH", "SOLVER.ACCUMULATION_STEPS", "SOLVER.BASE_LR")
NOT_NEGATIVE = (
    "SOLVER.BASE_LR_END",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.BACKBONE_MULTIPLIER",
    "SOLVER.GAMMA",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_NORM",
    "SOLVER.POLY_LR_POWER",
    "SOLVER.POLY_LR_CONSTANT_ENDING",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.LOG_PERIOD",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.MAX_SKIPPED_STEPS",
    "SOLVER.REFERENCE_BATCH",
    "SOLVER.EARLY_STOP.PATIENCE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.MAX_UNREADABLE",
    "DATALOADER.TIMEOUT_S",
    "DATALOADER.REPEAT_THRESHOLD",
)


def check_values(cfg: CfgNode) -> None:
    """Check the ranges of numbers that Detectron2 and torch would take, or refuse in the middle of the work.

    Detectron2's convention stays that a period below 1 (SOLVER.CHECKPOINT_PERIOD, TEST.EVAL_PERIOD) means "never".

    Args:
        cfg: config with segkit's keys.

    Raises:
        ConfigError: a number is out of range, or not finite.
    """
    for keys, expected in ((POSITIVE, "a finite number above 0"), (NOT_NEGATIVE, "a finite number, 0 or more")):
        for key in keys:
            value = attrgetter(key)(cfg)
            if not math.isfinite(value) or value < 0 or (value == 0 and keys is POSITIVE):
                raise ConfigError(f"expected {expected}, got {value}", where=key)
    if cfg.SEED > MAX_SEED:
        raise ConfigError(f"expected a number of at most {MAX_SEED}, got {cfg.SEED}", where="SEED")
