"""Numbers that no training can run with are one line, before any image is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.utils.errors import ConfigError
from tests.helpers.small_training import build_config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER__ACCUMULATION_STEPS", 0, "SOLVER.ACCUMULATION_STEPS: expected a finite number above 0, got 0"),
        ("SOLVER__IMS_PER_BATCH", 0, "SOLVER.IMS_PER_BATCH: expected a finite number above 0, got 0"),
        ("SOLVER__MAX_ITER", 0, "SOLVER.MAX_ITER: expected a finite number above 0, got 0"),
        ("SOLVER__BASE_LR", "1e999", "SOLVER.BASE_LR: expected a finite number above 0, got inf"),
        ("SOLVER__MOMENTUM", -0.5, "SOLVER.MOMENTUM: expected a finite number, 0 or more, got -0.5"),
        ("DATALOADER__NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS: expected a finite number, 0 or more, got -1"),
        ("MODEL__DEVICE", "gpu", "MODEL.DEVICE 'gpu' is unknown; choose cuda or cpu"),
        ("SEED", 2**64, "SEED: expected a number of at most"),
    ],
)
def test_numbers_out_of_range_are_refused(
    key: str, value: object, message: str, toy_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(toy_folder, tmp_path, **{key: value})
