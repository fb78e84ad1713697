"""Subclasses of the trainer as Detectron2's users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.data import build_detection_train_loader
from detectron2.evaluation import DatasetEvaluator

from segkit.data.catalog import load_datasets
from segkit.engine.training.data import build_mapper
from segkit.engine.training.foreign_loader import ForeignLoader
from segkit.engine.training.trainer import Trainer
from segkit.utils.errors import ConfigError
from tests.helpers.small_training import build_config


class CountingEvaluator(DatasetEvaluator):
    def reset(self) -> None:
        self.images = 0

    def process(self, inputs: Any, outputs: Any) -> None:
        self.images += len(inputs)

    def evaluate(self) -> dict[str, Any]:
        return {"counts": {"images": float(self.images)}}


class Detectron2Style(Trainer):
    """The signatures of Detectron2's `DefaultTrainer`."""

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        mapper = build_mapper(cfg, load_datasets(cfg.DATASETS.TRAIN), is_train=True)
        return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        return CountingEvaluator()


def test_loader_and_evaluator_with_detectron2s_signatures_are_used(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"SOLVER__ACCUMULATION_STEPS": 2, "INPUT__COPY_PASTE__PROBABILITY": 0.0, "TEST__BEST_METRIC": "images"}
    cfg = build_config(toy_folder, tmp_path, **options, SOLVER__MAX_ITER=2)
    cfg.defrost()
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    trainer = Detectron2Style(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.results["counts"] == {"images": 12.0}
    assert (tmp_path / "model_best.pth").exists()
    resumed = Detectron2Style(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    assert "its images begin again" in caplog.text


class WithoutResults(Trainer):
    @classmethod
    def test(cls, cfg: Any, model: Any, evaluators: Any = None) -> None:
        pass


def test_an_evaluation_without_results_ends_as_usual(toy_folder: Path, tmp_path: Path) -> None:
    trainer = WithoutResults(build_config(toy_folder, tmp_path, SOLVER__MAX_ITER=1))
    trainer.train()
    assert trainer.results == {}


def test_a_loader_that_ends_begins_again_and_an_empty_one_is_refused() -> None:
    loader = ForeignLoader([[1, 2], [3, 4]], parts=2)
    assert [loader.next_step() for _ in range(3)] == [[[1], [2]], [[3], [4]], [[1], [2]]]
    with pytest.raises(ConfigError, match="a loader without a batch"):
        ForeignLoader([]).next_step()
    with pytest.raises(ConfigError, match=r"SOLVER.ACCUMULATION_STEPS 2 cannot cut"):
        ForeignLoader([[1, 2, 3]], parts=2).next_step()
