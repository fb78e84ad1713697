"""The moving average of the weights: its values, skipped steps, evaluation, files, resuming."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segkit.engine.checkpoints.weight_files import read_segkit_entry, read_weight_file
from segkit.engine.training.ema import WeightEMA
from segkit.engine.training.trainer import Trainer
from segkit.utils.errors import ConfigError
from tests.helpers.small_training import build_config, train


def test_the_average_follows_the_weights_and_leaves_out_skipped_steps() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    model[1].weight.requires_grad_(False)
    model[0].weight.data.fill_(0.0)
    ema = WeightEMA(decay=0.15)
    ema.trainer = SimpleNamespace(checkpointer=SimpleNamespace(model=model), start_iter=0)
    ema.before_train()
    averages = []
    for weight, is_skipped in ((1.0, False), (5.0, True), (1.0, False)):
        model[0].weight.data.fill_(weight)
        ema.trainer.last_step = SimpleNamespace(is_skipped=torch.tensor(is_skipped))
        ema.after_step()
        averages.append(ema.state_dict()["averages"]["0.weight"].item())
    # Decay (1 + 0) / 10 = 0.1 in the first step: 0.9. In the second min(0.15, 2 / 11) = 0.15: 0.15 * 0.9 + 0.85.
    assert averages == pytest.approx([0.9, 0.9, 0.985])
    assert [*ema.state_dict()["averages"]] == ["0.weight"]
    assert ema.state_dict()["steps"] == 2
    with ema.applied():
        assert model[0].weight.item() == pytest.approx(0.985)
    assert model[0].weight.item() == 1.0


def test_a_decay_of_1_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"expected SOLVER\.EMA\.DECAY in \[0, 1\), got 1\.0"):
        WeightEMA(1.0)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("PanopticRCNN", "backbone.fpn_output2.weight"),
        ("Mask2Former", "sem_seg_head.predictor.query_feat.weight"),
        ("EoMT", "head.q.weight"),
    ],
)
def test_a_resumed_training_has_the_same_averages_which_are_evaluated_and_written(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, name: str
) -> None:
    evaluated = []

    def test(_cfg: Any, model: torch.nn.Module, _evaluators: Any = None) -> dict[str, Any]:
        evaluated.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    monkeypatch.setattr(Trainer, "test", staticmethod(test))
    options = {"SOLVER__EMA__ENABLED": True, "SOLVER__MAX_ITER": 4, "SOLVER__CHECKPOINT_PERIOD": 2}
    whole = train(build_config(toy_folder, tmp_path / "whole", architecture, **options))
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "model_0000001.pth").rename(tmp_path / "parts" / "model_0000001.pth")
    resumed = train(build_config(toy_folder, tmp_path / "parts", architecture, **options), resume=True)
    assert resumed.start_iter == 2

    average = read_weight_file(str(tmp_path / "whole" / "model_final_ema.pth"))["model"]
    again = read_weight_file(str(tmp_path / "parts" / "model_final_ema.pth"))["model"]
    trained = read_weight_file(str(tmp_path / "whole" / "model_final.pth"))["model"]
    assert all(torch.equal(value, again[name]) for name, value in average.items())
    assert all(torch.equal(value, evaluated[0][name]) for name, value in average.items())
    assert all(torch.equal(value, trained[name]) for name, value in whole.checkpointer.model.state_dict().items())
    assert not torch.equal(average[name], trained[name])
    assert read_segkit_entry(str(tmp_path / "whole" / "model_final_ema.pth"))["categories"]
    assert resumed.checkpointer.get_checkpoint_file().endswith("model_final.pth")
