"""Signals that ask a training to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from segkit.engine.training.stop import StopRequest
from segkit.engine.training.trainer import Trainer
from segkit.utils.signals import Terminated
from tests.helpers.small_training import build_config, train


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_is_noted_once_and_the_earlier_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as request:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == number
    assert signal.getsignal(number) == before


def test_a_signal_in_or_before_an_evaluation_ends_it_at_once() -> None:
    with StopRequest() as request:
        with pytest.raises(Terminated) as ended, request.raising():
            os.kill(os.getpid(), signal.SIGUSR2)
        assert ended.value.code == 128 + signal.SIGUSR2
        os.kill(os.getpid(), signal.SIGTERM)  # afterwards it is noted only
        with pytest.raises(Terminated), request.raising():
            pytest.fail("the block must not begin")


def test_an_evaluation_that_is_ended_has_its_checkpoint(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = build_config(toy_folder, tmp_path, TEST__EVAL_PERIOD=2, SOLVER__CHECKPOINT_PERIOD=100)

    def end(*_arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "test", end)
    with pytest.raises(Terminated):
        train(cfg)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000001.pth"]
