"""Weights & Biases and MLflow get the numbers of a training. Neither is installed: fakes record the calls."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from segkit.cli.main import main
from segkit.utils.errors import ConfigError
from tests.helpers.small_training import CONFIG, build_config, build_options, train

WANDB = {"LOG__WANDB__ENABLED": True, "LOG__WANDB__PROJECT": "cells", "LOG__WANDB__NAME": "first"}
MLFLOW = {"LOG__MLFLOW__ENABLED": True, "LOG__MLFLOW__EXPERIMENT": "cells", "LOG__MLFLOW__URI": "http://server"}
Metric = namedtuple("Metric", "key value timestamp step")


class FakeWandb(ModuleType):
    """wandb.init and its Run, as in wandb 0.31: a step that the run has already is refused."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, SimpleNamespace] = {}
        self.calls: list[dict[str, Any]] = []

    def init(self, *, dir: str, config: dict[str, Any], allow_val_change: bool, **options: Any) -> Any:
        self.calls.append(options)
        assert type(config["SOLVER"]) is dict
        run_id = options.get("id") or f"run{len(self.runs)}"
        run = self.runs.setdefault(run_id, SimpleNamespace(id=run_id, steps={}, exit_codes=[]))
        run.starting_step = max(run.steps, default=-1) + 1

        def log(data: dict[str, float], step: int) -> None:
            assert step >= run.starting_step
            run.steps[step] = data

        run.log, run.finish = log, lambda exit_code: run.exit_codes.append(exit_code)
        return run


class FakeMlflow(ModuleType):
    """mlflow.MlflowClient, as in mlflow 3."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Any] = {}
        self.uris: list[str | None] = []

    def MlflowClient(self, tracking_uri: str | None = None) -> FakeMlflow:  # noqa: N802 - a class of mlflow
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = f"experiment{len(self.experiments)}"
        return self.experiments[name]

    def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
        assert experiment_id in self.experiments.values()
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = SimpleNamespace(metrics=[], statuses=["RUNNING"], artifacts={})
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str | None = None) -> None:
        self.runs[run_id].statuses.append(status)

    def log_batch(self, run_id: str, metrics: Any = (), synchronous: bool | None = None) -> None:
        self.runs[run_id].metrics += metrics

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.runs[run_id].artifacts[artifact_file] = text

    def set_terminated(self, run_id: str, status: str | None = None) -> None:
        self.runs[run_id].statuses.append(status)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    module, entities = FakeMlflow(), ModuleType("mlflow.entities")
    entities.Metric = Metric  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return module


def kill(trainer: Any) -> None:
    if trainer.iter == 4:
        raise KeyboardInterrupt


def test_both_get_the_numbers_and_a_resumed_training_goes_on(
    toy_folder: Path, tmp_path: Path, wandb: FakeWandb, mlflow: FakeMlflow
) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=1, **WANDB, **MLFLOW)
    with pytest.raises(KeyboardInterrupt):
        train(cfg, after_step=kill)
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"WANDB": "run0", "MLFLOW": "run0"}
    assert train(cfg, resume=True).start_iter == 3  # iteration 3 is repeated

    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert wandb.calls == [{"project": "cells", "name": "first"}, {"id": "run0", "resume": "allow", **wandb.calls[0]}]
    (run,) = wandb.runs.values()
    losses = {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}
    assert [*losses] == [*range(6)]
    assert {step: numbers["total_loss"] for step, numbers in run.steps.items() if step < 6} == losses
    assert run.exit_codes == [1, 0]

    assert mlflow.uris == ["http://server"] * 2
    assert [*mlflow.experiments] == ["cells"]
    (tracked,) = mlflow.runs.values()
    values = [(metric.step, metric.value) for metric in tracked.metrics if metric.key == "total_loss"]
    assert [step for step, _ in values] == [0, 1, 2, 3, 3, 4, 5]
    assert dict(values) == losses
    assert tracked.statuses == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert "MAX_ITER: 6" in tracked.artifacts["config.yaml"]

    train(cfg)  # from the beginning: a run of its own
    assert [*wandb.runs] == [*mlflow.runs] == ["run0", "run1"]


def test_a_tracker_that_fails_does_not_end_the_training(
    toy_folder: Path, tmp_path: Path, mlflow: FakeMlflow, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("no route to host")

    mlflow.log_batch = fail  # type: ignore[method-assign]
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=1, SOLVER__MAX_ITER=3, **MLFLOW)
    assert train(cfg).is_finished
    assert len([text for text in caplog.messages if "MLflow fails, and the training goes on" in text]) == 1


def test_a_tracker_that_does_not_start_is_one_line(toy_folder: Path, tmp_path: Path, wandb: FakeWandb) -> None:
    def fail(**_options: Any) -> None:
        raise RuntimeError("no API key\nconfigured")

    wandb.init = fail  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"LOG.WANDB: Weights & Biases does not start a run: no API key configured;"):
        train(build_config(toy_folder, tmp_path, **WANDB))


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_before_the_training(
    toy_folder: Path,
    tmp_path: Path,
    package: str,
    is_folder: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A folder of this name in the working directory can be imported too.
    monkeypatch.setitem(sys.modules, package, ModuleType(package) if is_folder else None)  # type: ignore[arg-type]
    options = build_options(toy_folder, tmp_path / "run", **(WANDB if package == "wandb" else MLFLOW))
    assert main(["train", "--config-file", CONFIG, *options]) == 1
    error = capsys.readouterr().err
    assert f"LOG.{package.upper()}.ENABLED: " in error
    assert f"the package {package} is not installed; pip install {package}, or set LOG.{package.upper()}" in error
    assert not (tmp_path / "run").exists()
