"""Detectron2's trainer with our data, optimizers, metrics, exports and checkpoints."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import inference_on_dataset
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

from segkit.data.catalog import load_dataset, load_datasets
from segkit.data.dataset import Dataset
from segkit.data.mapper import SegkitMapper
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.evaluation import build_evaluators
from segkit.evaluation.head_outputs import fusing_saved_values
from segkit.structures import CategorySet
from segkit.utils import files
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class CategoriesInCheckpoint:
    """The dataset's categories as part of a checkpoint, so that weights know the names of their classes."""

    def __init__(self, categories: CategorySet, thing_channels: str) -> None:
        """thing_channels: what the channels of the semantic head mean, see CategorySet.build_semantic_space."""
        self.categories = categories
        self.thing_channels = thing_channels

    def state_dict(self) -> dict[str, Any]:
        return {"categories": self.categories.to_coco(), "thing_channels": self.thing_channels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        saved = CategorySet.from_coco(state["categories"], "checkpoint")
        if saved != self.categories:
            raise ConfigError("the checkpoint to resume from was trained on other categories than the dataset has")


class Trainer(DefaultTrainer):
    """DefaultTrainer whose loaders, evaluators and checkpoints are segkit's; cfg comes from `prepare_config`."""

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        # device_ids must not be given on the CPU, where gloo synchronises the gradients.
        ids = {} if next(model.parameters()).is_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **ids)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            trainer=weakref.proxy(self),
            segkit=CategoriesInCheckpoint(
                load_dataset(cfg.DATASETS.TRAIN[0]).categories, cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS
            ),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[Any]:
        """DefaultTrainer's hooks; the evaluation's results are kept whole and only their numbers are logged."""

        def evaluate() -> dict[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return numbers_only(self._last_eval_results)

        replaced = hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, evaluate)
        return [replaced if isinstance(hook, hooks.EvalHook) else hook for hook in super().build_hooks()]

    def build_writers(self) -> list[EventWriter]:
        """Terminal with ETA, TensorBoard, and `training.jsonl`; `metrics.json` is for results."""
        output = Path(self.cfg.OUTPUT_DIR)
        output.mkdir(parents=True, exist_ok=True)
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(str(output / "training.jsonl")),
            TensorboardXWriter(str(output)),
        ]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """SOLVER.OPTIMIZER: SGD as Detectron2 builds it, or AdamW with the same parameter groups and clipping."""
        kind = cfg.SOLVER.OPTIMIZER.upper()
        if kind == "SGD":
            return build_sgd(cfg, model)
        if kind != "ADAMW":
            raise ConfigError(f"SOLVER.OPTIMIZER {cfg.SOLVER.OPTIMIZER!r} is unknown", remedy="choose SGD or ADAMW")
        groups = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return adamw(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY, fused=True)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader over DATASETS.TRAIN, with our mapper where the datasets are ours.

        DATALOADER.FILTER_EMPTY_ANNOTATIONS is the loader's to obey where records have annotations; else the mapper's,
        for then a map must be read to know.
        """
        datasets = load_datasets(cfg.DATASETS.TRAIN)
        mapper = _mapper(cfg, datasets, is_train=True)
        if mapper is None or all("annotations" in dataset.records[0] for dataset in datasets):
            return build_detection_train_loader(cfg, mapper=mapper)
        records = [record for dataset in datasets for record in dataset.records]
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        dataset = load_dataset(dataset_name)
        mapper = _mapper(cfg, [dataset], is_train=False)
        return build_detection_test_loader(dataset.records, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every dataset of DATASETS.TEST.

        Writes OUTPUT_DIR/inference/<dataset>/ (exports and metrics.json) and OUTPUT_DIR/metrics.json; returns what the
        latter holds: Detectron2's result dict, or one for each dataset where there are several. Empty but on the main
        process.
        """
        _share_buffers(model)
        results: dict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TEST:
            folder = Path(cfg.OUTPUT_DIR) / "inference" / name
            judges = evaluators or build_evaluators(cfg, load_dataset(name), folder)
            saving = fusing_saved_values(model, cfg.TEST.KEEP_LOGITS) if cfg.TEST.SAVE_HEADS else nullcontext()
            with saving:
                found = inference_on_dataset(model, cls.build_test_loader(cfg, name), judges)
            if comm.is_main_process():
                results[name] = found
                files.dump_json(folder / "metrics.json", found)
                _log_headlines(name, found)
        if not comm.is_main_process():
            return {}
        results = next(iter(results.values())) if len(results) == 1 else results
        files.dump_json(Path(cfg.OUTPUT_DIR) / "metrics.json", results)
        return results


def numbers_only(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results without tables per class and undefined numbers, as Detectron2's hooks take them."""
    kept: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and key != "per_class":
            kept[key] = numbers_only(value)
        elif isinstance(value, (int, float)):
            kept[key] = float(value)
    return kept


def _mapper(cfg: CfgNode, datasets: list[Dataset], is_train: bool) -> Any:
    own = {dataset.uses_segkit_mapper for dataset in datasets}
    if len(own) > 1:
        raise ConfigError(
            f"segkit's and Detectron2's datasets cannot be mixed: {[dataset.name for dataset in datasets]}",
            where="DATASETS.TRAIN",
            remedy="use the names that start with segkit_",
        )
    if own == {False} and is_train:
        return None  # Detectron2's DatasetMapper, by the config
    return SegkitMapper.from_config(cfg, datasets[0], is_train, *datasets[1:])


def _share_buffers(model: torch.nn.Module) -> None:
    """Every process judges the model that is saved: the main process's running statistics, for each has its own."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _log_headlines(name: str, results: Mapping[str, Any]) -> None:
    for task, values in results.items():
        shown = {k: v for k, v in values.items() if "-" not in k and isinstance(v, float)}
        told = ", ".join(f"{key} {value:.2f}" for key, value in shown.items())
        logger.info("%s %s: %s", name, task, told or "no number, for nothing is labelled")
