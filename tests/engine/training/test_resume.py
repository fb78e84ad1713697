"""A training that is interrupted and resumed has the weights of one that is not, to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from segkit.engine.training.trainer import Trainer
from segkit.utils.errors import CheckpointError, ConfigError, TrainingError
from segkit.utils.signals import Terminated
from tests.helpers.small_training import build_config, compare_weights, train


@pytest.mark.parametrize(
    ("architecture", "workers"), [("PanopticRCNN", 0), ("PanopticRCNN", 2), ("Mask2Former", 0), ("EoMT", 0)]
)
def test_a_stopped_training_goes_on_to_the_same_weights(
    toy_folder: Path, tmp_path: Path, architecture: str, workers: int
) -> None:
    """EoMT anneals its masks by the iteration, here to the end of the training."""
    whole = train(build_config(toy_folder, tmp_path / "whole", architecture))
    cfg = build_config(toy_folder, tmp_path / "parts", architecture, DATALOADER__NUM_WORKERS=workers)

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


def test_another_number_of_processes_is_noted_and_another_version_is_refused(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(build_config(toy_folder, tmp_path))
    state = trainer.state_dict()
    trainer.load_state_dict({**state, "processes": 4})
    assert "the checkpoint is of 4 processes, now there are 1" in caplog.text
    with pytest.raises(CheckpointError, match="state of version 1, got 0; start from its weights"):
        trainer.load_state_dict({**state, "version": 0})
    with pytest.raises(CheckpointError, match="state of version 1, got None"):
        trainer.load_state_dict({"iteration": 3})  # of Detectron2's trainer


def test_a_diverged_training_goes_on_at_another_learning_rate(toy_folder: Path, tmp_path: Path) -> None:
    options = {"SOLVER__WARMUP_ITERS": 0, "SOLVER__CHECKPOINT_PERIOD": 1, "SOLVER__MAX_SKIPPED_STEPS": 0}
    with pytest.raises(TrainingError):
        train(build_config(toy_folder, tmp_path, **options, SOLVER__BASE_LR=1e12))
    gentle = build_config(toy_folder, tmp_path, **options, SOLVER__BASE_LR=1e-9)
    resumed = Trainer(gentle)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter > 0
    assert all(0 < group["lr"] <= 1e-9 for group in resumed.optimizer.param_groups)


def test_a_training_beyond_the_last_iteration_is_refused_and_keeps_its_checkpoints(
    toy_folder: Path, tmp_path: Path
) -> None:
    train(build_config(toy_folder, tmp_path, SOLVER__MAX_ITER=2))
    final = (tmp_path / "model_final.pth").read_bytes()
    with pytest.raises(ConfigError, match=r"has done 2 iterations, SOLVER.MAX_ITER is 1; raise SOLVER.MAX_ITER"):
        train(build_config(toy_folder, tmp_path, SOLVER__MAX_ITER=1), resume=True)
    assert (tmp_path / "model_final.pth").read_bytes() == final


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"SOLVER__OPTIMIZER": "SGD"}, "is of the optimizer AdamW, not of SGD; resume with the settings"),
        (
            {"MODEL__FREEZE": "['backbone.bottom_up.stem']"},
            r"groups have \[.*\] tensors of weights, those of the checkpoint",
        ),
    ],
)
def test_another_optimizer_is_refused(options: dict[str, str], message: str, toy_folder: Path, tmp_path: Path) -> None:
    state = Trainer(build_config(toy_folder, tmp_path)).state_dict()
    with pytest.raises(CheckpointError, match=message):
        Trainer(build_config(toy_folder, tmp_path, **options)).load_state_dict(state)


def test_precise_statistics_of_a_resumed_training_are_those_of_one_that_was_not_stopped(
    toy_folder: Path, tmp_path: Path
) -> None:
    options = {"TEST__PRECISE_BN__ENABLED": True, "TEST__PRECISE_BN__NUM_ITER": 1, "SOLVER__CHECKPOINT_PERIOD": 2}
    options |= {"TEST__EVAL_PERIOD": 2, "SOLVER__MAX_ITER": 3}

    before: list[torch.Tensor] = []

    def collect(trainer: Trainer) -> None:
        before.append(trainer.model.backbone.fpn_output2.norm.running_mean.clone())

    whole = train(build_config(toy_folder, tmp_path, **options), after_step=collect)
    assert not torch.equal(whole.model.backbone.fpn_output2.norm.running_mean, before[-1])
    (tmp_path / "model_final.pth").unlink()
    resumed = train(build_config(toy_folder, tmp_path, **options), resume=True)
    assert resumed.start_iter == 2
    assert compare_weights(whole.model, resumed.model) == []


def test_the_budget_of_unreadable_images_goes_on(toy_folder: Path, tmp_path: Path) -> None:
    def skip_one(trainer: Trainer) -> None:
        trainer.loader.unreadable.append("a.png: expected an image, got text")

    values = {"DATALOADER__MAX_UNREADABLE": 3, "SOLVER__CHECKPOINT_PERIOD": 2}
    train(build_config(toy_folder, tmp_path, **values, SOLVER__MAX_ITER=2), after_step=skip_one)
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]
    assert state["unreadable"] == 2
    with pytest.raises(TrainingError, match="a process has skipped 4 images that cannot be read"):
        train(build_config(toy_folder, tmp_path, **values, SOLVER__MAX_ITER=8), resume=True, after_step=skip_one)
