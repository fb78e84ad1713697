"""What a training writes of its numbers: a line of the log, training.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segkit.engine.training.trainer import Trainer
from segkit.engine.training.writers import JsonLines, format_line
from segkit.utils.signals import Terminated
from tests.helpers.small_training import build_config, train


def read_lines(output: Path) -> list[dict[str, Any]]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text = (output / "training.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_line_a_period_with_the_means_of_the_period(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "segkit")
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=2, SOLVER__MAX_ITER=5)
    single = build_config(toy_folder, tmp_path / "single", SOLVER__LOG_PERIOD=1, SOLVER__MAX_ITER=5)
    train(cfg)
    lines = [text for text in caplog.messages if text.startswith(" eta: ")]
    pattern = (
        r" eta: 0:00:\d\d  iter: \d  total_loss: [\d.]+  (loss_\w+: [\d.e-]+  )+time: [\d.]+  "
        r"data_time: [\d.]+ \(\d+%\)  images/s: [\d.]+  lr: [\d.e-]+(  max_mem: \d+M)?"
    )
    assert [re.fullmatch(pattern, line) is not None for line in lines] == [True] * 3
    assert lines[-1].startswith(" eta: 0:00:00  iter: 4  ")  # the last period has one iteration

    train(single)
    periods, steps = read_lines(tmp_path), read_lines(tmp_path / "single")
    assert [line["iteration"] for line in periods] == [1, 3, 4]
    for line, parts in zip(periods, (steps[0:2], steps[2:4], steps[4:]), strict=True):
        for name in [name for name in line if "loss" in name]:
            assert line[name] == pytest.approx(sum(part[name] for part in parts) / len(parts), rel=1e-5), name
        assert line["images_per_second"] == pytest.approx(cfg.SOLVER.IMS_PER_BATCH / line["time"])
        assert 0 <= line["data_time"] < line["time"]
        assert line["eta_seconds"] == pytest.approx(0) or line["iteration"] < 4


def test_the_time_of_an_iteration_excludes_evaluations(toy_folder: Path, tmp_path: Path) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=4, SOLVER__MAX_ITER=4, TEST__EVAL_PERIOD=2)

    class SlowEvaluation(Trainer):
        @classmethod
        def test(cls, *_arguments: Any, **_options: Any) -> dict[str, Any]:
            time.sleep(1)
            return {"panoptic_seg": {"PQ": 50.0, "SQ": math.nan}}

    trainer = SlowEvaluation(cfg)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    between, period, end = read_lines(tmp_path)
    # The evaluation is called after iteration 1, and after the training.
    assert between == {"iteration": 1, "panoptic_seg/PQ": 50.0, "panoptic_seg/SQ": None}
    assert end == {**between, "iteration": 4}
    assert period["iteration"] == 3
    assert 4 * period["time"] < seconds - 2  # two evaluations of a second


def test_a_resumed_training_repeats_no_iteration(toy_folder: Path, tmp_path: Path) -> None:
    options = {"SOLVER__LOG_PERIOD": 1, "SOLVER__CHECKPOINT_PERIOD": 2, "SOLVER__MAX_ITER": 4}
    cfg = build_config(toy_folder, tmp_path, **options)

    def stop(trainer: Trainer) -> None:
        if trainer.iter == 2:
            raise KeyboardInterrupt  # after the third step: the checkpoint is of the second one

    with pytest.raises(KeyboardInterrupt):
        train(cfg, after_step=stop)
    path = tmp_path / "training.jsonl"
    first = read_lines(tmp_path)
    assert [line["iteration"] for line in first] == [0, 1]
    with path.open("a") as file:
        file.write('{"iteration": 2, "total_loss": 77.0}\n{"iteration": 1, "total')  # a killed process
    assert train(cfg, resume=True).start_iter == 2
    assert [line["iteration"] for line in read_lines(tmp_path)] == [0, 1, 2, 3]
    assert read_lines(tmp_path)[:2] == first
    assert 77.0 not in [line["total_loss"] for line in read_lines(tmp_path)]
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("total_loss")
    assert [event.step for event in events] == [0, 1, 2, 3]
    assert [event.value for event in events] == pytest.approx([line["total_loss"] for line in read_lines(tmp_path)])

    train(cfg)  # from the beginning
    assert [line["iteration"] for line in read_lines(tmp_path)] == [0, 1, 2, 3]


def test_a_training_that_is_stopped_writes_the_part_of_its_period(toy_folder: Path, tmp_path: Path) -> None:
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=5)

    def stop(trainer: Trainer) -> None:
        if trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        train(cfg, after_step=stop)
    (line,) = read_lines(tmp_path)
    train(cfg, resume=True)
    assert [each["iteration"] for each in read_lines(tmp_path)] == [line["iteration"], 4, 5]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "training.jsonl", period=1)
    with EventStorage(0) as storage:
        writer.start(0)
        storage.put_scalars(total_loss=math.inf, loss_mask=math.nan, lr=0.5)
        writer.write()
        writer.close()
    assert read_lines(tmp_path) == [{"iteration": 0, "loss_mask": None, "lr": 0.5, "total_loss": None}]


def test_a_period_without_a_finite_loss_says_so() -> None:
    numbers = {"time": 0.5, "data_time": 0.05, "images_per_second": 32.0, "eta_seconds": 3661.5, "lr": 0.02}
    expected = " eta: 1:01:01  iter: 7  no finite loss  time: 0.5000  data_time: 0.0500 (10%)  images/s: 32  lr: 0.02"
    assert format_line(7, numbers) == expected
    with_losses = {"loss_b": 1.0, "total_loss": 3.0, "loss_a": 2.0, "max_mem_mb": 5.4, **numbers}
    line = format_line(7, with_losses)
    assert "  total_loss: 3  loss_b: 1  loss_a: 2  time: " in line
    assert line.endswith("  max_mem: 5M")
