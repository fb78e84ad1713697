"""The best weights of a training, and its early end, the same after a resume and on all processes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage

from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.engine.training.best import BestResult
from segkit.engine.training.hooks import Evaluation
from segkit.engine.training.stop import StopRequest
from segkit.engine.training.trainer import Trainer
from segkit.utils.errors import ConfigError
from tests.helpers.small_training import build_config, train
from tests.helpers.two_processes import run_in_two

PQ = [1.0, 3.0, 2.0, 3.0, 9.0, 9.0]  # of the evaluations after iterations 1, 2, ...


@pytest.mark.parametrize(
    ("metric", "numbers", "name"),
    [
        ("auto", {"sem_seg/mIoU": 1, "segm/AP": 2, "panoptic_seg/PQ": 3}, "panoptic_seg/PQ"),
        ("auto", {"sem_seg/mIoU": 1, "segm/AP": 2, "panoptic_seg/PQ": math.nan}, "segm/AP"),
        ("auto", {"sem_seg/fwIoU": 1, "sem_seg/mIoU": 1}, "sem_seg/mIoU"),
        ("auto", {"mine/score": 1}, "mine/score"),
        ("auto", {"second/panoptic_seg/PQ": 1, "first/panoptic_seg/PQ": 1}, "second/panoptic_seg/PQ"),
        ("AP50", {"bbox/AP": 1, "bbox/AP50": 1, "segm/AP50": 1}, "bbox/AP50"),
        ("segm/AP50", {"bbox/AP50": 1, "segm/AP50": 1}, "segm/AP50"),
    ],
)
def test_the_metric_is_the_one_asked_for(metric: str, numbers: dict[str, float], name: str) -> None:
    best = BestResult(metric)
    assert best.update(1, numbers)
    assert best.name == name


def test_a_metric_that_does_not_exist_is_a_warning_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    best = BestResult("panoptic_seg/QP")
    assert not best.update(5, {"panoptic_seg/PQ": 1.0})
    assert "no metric panoptic_seg/QP to compare (TEST.BEST_METRIC); did you mean 'panoptic_seg/PQ'?" in caplog.text
    assert best.without_gain == 0


def test_patience_without_evaluations_is_a_clear_error(toy_folder: Path, tmp_path: Path) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__EARLY_STOP__PATIENCE=2)
    with pytest.raises(ConfigError, match=r"PATIENCE 2 needs evaluations to compare; set TEST\.EVAL_PERIOD"):
        Trainer(cfg)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The iterations that are evaluated, with the results of `PQ`."""
    iterations: list[int] = []
    build_hooks = Trainer.build_hooks

    def build(trainer: Trainer) -> Any:
        def test(_cfg: Any, _model: torch.nn.Module, _evaluators: Any = None) -> dict[str, Any]:
            done = trainer.scheduler.last_epoch
            iterations.append(done)
            return {"panoptic_seg": {"PQ": PQ[done - 1]}}

        trainer.test = test
        return build_hooks(trainer)

    monkeypatch.setattr(Trainer, "build_hooks", build)
    return iterations


def test_a_training_without_gain_ends_and_keeps_the_best_weights(
    toy_folder: Path, tmp_path: Path, evaluated: list[int]
) -> None:
    options = {"TEST__EVAL_PERIOD": 1, "SOLVER__EARLY_STOP__PATIENCE": 2, "SOLVER__CHECKPOINT_PERIOD": 1}
    options["DATASETS__TEST"] = f"('training_{toy_folder.parent.name}',)".replace("-", "_")
    weights = {}

    def remember(trainer: Trainer) -> None:
        weights[trainer.iter + 1] = {name: w.clone() for name, w in trainer.checkpointer.model.state_dict().items()}

    whole = train(
        build_config(toy_folder, tmp_path / "whole", **options, SOLVER__CHECKPOINT_KEEP=0), after_step=remember
    )
    assert evaluated == [1, 2, 3, 4]  # 2.0 and 3.0 are no gain after 3.0; the last weights are not evaluated twice
    assert whole.is_finished
    assert whole.results == {"panoptic_seg": {"PQ": 3.0}}
    best = read_weight_file(str(tmp_path / "whole" / "model_best.pth"))["model"]
    assert all(torch.equal(value, best[name]) for name, value in weights[2].items())
    final = read_weight_file(str(tmp_path / "whole" / "model_final.pth"))
    assert final["iteration"] == final["trainer"]["iteration"] == 3
    assert all(torch.equal(value, final["model"][name]) for name, value in weights[4].items())

    # The checkpoint of iteration 3 was written before its evaluation, which is therefore done first.
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "model_0000002.pth").rename(tmp_path / "parts" / "model_0000002.pth")
    evaluated.clear()
    train(build_config(toy_folder, tmp_path / "parts", **options), resume=True)
    assert evaluated == [3, 4]
    evaluated.clear()
    again = train(build_config(toy_folder, tmp_path / "parts", **options), resume=True)
    assert (again.start_iter, again.iter, evaluated) == (4, 4, [4])


def evaluate_as_rank(rank: int) -> list[Any]:
    """The main process alone has results; [iterations, best, evaluations since] of each."""
    trainer = SimpleNamespace(start_iter=0, max_iter=6, iter=0, ema=None, cfg=None, model=None, is_finished=False)
    trainer.storage, trainer.save, trainer.stop_request = EventStorage(), lambda: None, StopRequest()
    trainer.checkpointer = SimpleNamespace(save_weights=lambda _name: None)
    trainer.test = lambda _cfg, _model: {} if rank else {"panoptic_seg": {"PQ": PQ[trainer.iter]}}
    hook = Evaluation(1, "auto", patience=2)
    hook.trainer = trainer
    while trainer.iter < trainer.max_iter:
        hook.after_step()
        trainer.iter += 1
    return [trainer.iter, hook.best.value, hook.best.without_gain]


def test_all_processes_end_at_the_same_iteration() -> None:
    assert run_in_two(evaluate_as_rank) == [[4, 3.0, 2]] * 2
