"""A training that is interrupted and resumed has the weights of one that is not, to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from segkit.utils.signals import Terminated
from tests.helpers.small_training import build_config, compare_weights, train


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_training_goes_on_to_the_same_weights(toy_folder: Path, tmp_path: Path, workers: int) -> None:
    whole = train(build_config(toy_folder, tmp_path / "whole"))
    cfg = build_config(toy_folder, tmp_path / "parts", DATALOADER__NUM_WORKERS=workers)

    def stop(trainer: object) -> None:
        if trainer.iter == 1:  # no iteration of CHECKPOINT_PERIOD
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated) as terminated:
        train(cfg, after_step=stop)
    assert terminated.value.code == 128 + signal.SIGTERM
    assert [path.name for path in (tmp_path / "parts").glob("*.pth")] == ["model_0000002.pth"]
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 3
    assert compare_weights(whole.model, resumed.model) == []
    assert whole.iter == resumed.iter == 6
