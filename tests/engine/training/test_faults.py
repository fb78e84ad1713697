"""Losses that are not finite: named, skipped within a budget, saved and run again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from segkit.cli.main import main
from segkit.engine.training.faults import RunningStatistics
from segkit.engine.training.replay import encode_sample, load_replay
from segkit.utils.errors import CheckpointError, TrainingError
from tests.helpers.small_training import build_config, train


def test_a_diverging_training_ends_with_one_line_and_its_last_step_can_be_run_again(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = {"SOLVER__BASE_LR": 1e12, "SOLVER__WARMUP_ITERS": 0, "SOLVER__MAX_SKIPPED_STEPS": 2}
    cfg = build_config(toy_folder, run, **options, SOLVER__MAX_ITER=9, SOLVER__CHECKPOINT_PERIOD=1)
    with pytest.raises(TrainingError, match=r"iteration \d, learning rate [\d.]+e\+1\d: .*BASE_LR") as error:
        train(cfg)
    text = str(error.value)
    assert re.search(
        r"((loss_\w+ is (nan|-?inf)|has diverged) with the images \[\d+, \d+\] of process 0|a gradient is not)", text
    )
    assert "3 steps were skipped" in text
    assert "\n" not in text
    assert caplog.text.count("the step is skipped") == 2
    saved = sorted(path.name for path in run.glob("*.pth"))
    assert "model_0000000.pth" in saved
    for name in saved:
        weights = torch.load(run / name, weights_only=False)["model"]
        assert all(torch.isfinite(weight).all() for weight in weights.values() if weight.is_floating_point())


def test_a_saved_step_has_the_same_losses_again(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    cfg = build_config(toy_folder, run, SOLVER__MAX_SKIPPED_STEPS=0)

    def break_weights(trainer: object) -> None:
        """The bias of the last layer of the masks: only their loss is not finite, in the next step."""
        trainer.model.roi_heads.mask_head.predictor.bias.data.fill_(float("inf"))

    with pytest.raises(TrainingError, match=r"iteration 1.*loss_mask is (nan|inf).*--replay (\S+)") as error:
        train(cfg, after_step=break_weights)
    path = Path(re.search(r"--replay (\S+)", str(error.value))[1].rstrip("`"))
    (run / "config.yaml").write_text(cfg.dump())
    capsys.readouterr()
    assert main(["train", "--replay", str(path)]) == 0
    lines = dict(re.findall(r"forward pass 0: (\w+) (.*)", capsys.readouterr().out))
    assert [name for name, text in lines.items() if "not finite" in text] == ["loss_mask"]
    step = load_replay(path)
    assert [sample["image"].dtype for sample in step.parts[0]] == [torch.uint8] * 2
    assert step.iteration == 1


def test_a_saved_step_whose_forward_pass_fails_can_be_run_again(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__MAX_SKIPPED_STEPS=0)

    def break_weights(trainer: object) -> None:
        trainer.model.proposal_generator.rpn_head.objectness_logits.bias.data.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"Inf/NaN. Training has diverged with the images.*--replay"):
        train(cfg, after_step=break_weights)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    capsys.readouterr()
    (path,) = (tmp_path / "faults").iterdir()
    assert main(["train", "--replay", str(path)]) == 0
    assert re.search("Training has diverged. nan  <- not finite", capsys.readouterr().out)


@pytest.mark.parametrize("content", [{"model": {}}, dict.fromkeys(("iteration", "rank", "seed", "parts", "model"), 1)])
def test_a_file_that_is_no_step_is_refused(content: dict[str, object], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="expected a step that a training has saved"):
        load_replay(tmp_path / "x.pth")


def test_running_statistics_are_those_before_the_skipped_step() -> None:
    layer = torch.nn.BatchNorm2d(1)
    statistics = RunningStatistics(layer, lag=1)
    statistics.keep(0)
    layer(torch.full((2, 1, 2, 2), float("nan")))
    statistics.keep(1)
    layer(torch.ones(2, 1, 2, 2))
    assert layer.running_mean.isnan()
    statistics.restore(0)
    assert layer.running_mean.item() == 0
    assert layer.running_var.item() == 1


def test_a_sample_without_structures_stays_as_it_is() -> None:
    assert encode_sample({"image_id": 3, "file_name": "a.png"}) == {"image_id": 3, "file_name": "a.png"}
