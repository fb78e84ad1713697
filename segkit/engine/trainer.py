"""Detectron2's trainer with our data, optimizers, metrics, exports and checkpoints."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

from segkit.config import with_segkit_keys
from segkit.data.catalog import load_dataset, load_datasets
from segkit.data.class_counts import get_thing_channels, resolve_class_counts
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.data.mapper import SegkitMapper
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.outcome import GRID, get_exports_folder, get_report_folder, write_report
from segkit.evaluation import build_evaluators
from segkit.evaluation.head_outputs import fusing_saved_values
from segkit.evaluation.samples import SampleEvaluator
from segkit.metrics.undefined import NOTES, add_notes
from segkit.report.tables import read_groups
from segkit.structures import CategorySet
from segkit.utils import files
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class CategoriesInCheckpoint:
    """The dataset's categories as a part of checkpoints, so that weights come with the names of their classes.

    Args:
        categories: categories of the dataset.
        thing_channels: meaning of the semantic head's channels, see CategorySet.build_semantic_space.
        plugins: names of the plugins that the run needs.
    """

    def __init__(self, categories: CategorySet, thing_channels: str, plugins: Sequence[str] = ()) -> None:
        self.categories = categories
        self.thing_channels = thing_channels
        self.plugins = [*plugins]

    def state_dict(self) -> dict[str, Any]:
        """The state to write."""
        state = {"categories": self.categories.to_coco(), "thing_channels": self.thing_channels}
        return {**state, "plugins": self.plugins}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare a saved state with the dataset; ConfigError if the categories differ."""
        saved = CategorySet.from_coco(state["categories"], "checkpoint")
        if saved != self.categories:
            problem = "the checkpoint to resume from was trained on other categories than the dataset has"
            raise ConfigError(problem, remedy="start without --resume, or use the dataset of the checkpoint")


class Trainer(DefaultTrainer):
    """DefaultTrainer with segkit's loaders, evaluators and checkpoints.

    Args:
        cfg: config of `prepare_config`, or of `add_segkit_config` with DATASETS.TRAIN.

    Raises:
        ConfigError: a class count contradicts the dataset, or the datasets contradict each other.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        cfg = _with_class_counts(cfg)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        _log_size(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        # On the CPU, where gloo synchronises the gradients, device_ids must not be given.
        ids = {} if next(model.parameters()).is_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **ids)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        categories = load_dataset(cfg.DATASETS.TRAIN[0]).categories
        classes = CategoriesInCheckpoint(categories, cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS, cfg.PLUGINS)
        states: dict[str, Any] = {"trainer": weakref.proxy(self), "segkit": classes}
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, keep=cfg.SOLVER.CHECKPOINT_KEEP, **states)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def train(self) -> None:
        """Train. Detectron2 would end the process if results differ from TEST.EXPECTED_RESULTS; the job reports it."""
        TrainerBase.train(self, self.start_iter, self.max_iter)

    def build_hooks(self) -> list[Any]:
        """DefaultTrainer's hooks, except that the evaluation keeps its whole results and logs only their numbers."""

        def evaluate() -> dict[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return select_numbers(self._last_eval_results)

        replaced = hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, evaluate)
        return [replaced if isinstance(hook, hooks.EvalHook) else hook for hook in super().build_hooks()]

    def build_writers(self) -> list[EventWriter]:
        """Writers for the terminal, TensorBoard and `training.jsonl`. `metrics.json` is kept for the results."""
        output = Path(self.cfg.OUTPUT_DIR)
        output.mkdir(parents=True, exist_ok=True)
        log = JSONWriter(str(output / "training.jsonl"))
        return [CommonMetricPrinter(self.max_iter), log, TensorboardXWriter(str(output))]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Build SOLVER.OPTIMIZER: Detectron2's SGD, or AdamW with the same parameter groups and clipping."""
        kind = cfg.SOLVER.OPTIMIZER.upper()
        if kind == "SGD":
            return build_sgd(cfg, model)
        if kind != "ADAMW":
            raise ConfigError(f"SOLVER.OPTIMIZER {cfg.SOLVER.OPTIMIZER!r} is unknown", remedy="choose SGD or ADAMW")
        names = "base_lr", "weight_decay_norm", "bias_lr_factor", "weight_decay_bias"
        groups = get_default_optimizer_params(model, **{name: cfg.SOLVER[name.upper()] for name in names})
        adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return adamw(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY, fused=True)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader over DATASETS.TRAIN, with segkit's mapper for segkit's datasets.

        DATALOADER.FILTER_EMPTY_ANNOTATIONS is applied by the loader if all records have annotations. Otherwise the
        mapper applies it, since only the map of an image shows whether the image is empty.
        """
        datasets = load_datasets(cfg.DATASETS.TRAIN)
        mapper = _build_mapper(cfg, datasets, is_train=True)
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:  # Detectron2 filters and completes these records
            return build_detection_train_loader(cfg, mapper=mapper)
        records = [record for dataset in datasets for record in dataset.records]
        is_annotated = all("annotations" in dataset.records[0] for dataset in datasets)
        if is_annotated and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            records = filter_images_with_only_crowd_annotations(records)
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """See base class."""
        dataset = load_dataset(dataset_name)
        mapper = _build_mapper(cfg, [dataset], is_train=False)
        return build_detection_test_loader(dataset.records, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every dataset of DATASETS.TEST.

        Writes OUTPUT_DIR/inference/<dataset>/ (exports and metrics.json) and OUTPUT_DIR/metrics.json; if TEST.EXPORT is
        set also report.html and grid.png, see `get_report_folder`.

        Args:
            cfg: config of `prepare_config`.
            model: the model.
            evaluators: evaluators to use instead of those of the config.

        Returns:
            The content of OUTPUT_DIR/metrics.json: Detectron2's dict of results, with `notes` if metrics are
            undefined (`add_notes`), or, for several datasets, a dict of them by dataset name. Empty on other processes
            than the main one.
        """
        cfg = with_segkit_keys(cfg)
        _broadcast_buffers(model)
        results: dict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TEST:
            folder = get_exports_folder(cfg, name)
            evaluator = evaluators or _build_evaluators(cfg, name, folder)
            saving = fusing_saved_values(model, cfg.TEST.KEEP_LOGITS) if cfg.TEST.SAVE_HEADS else nullcontext()
            with saving:
                dataset_results = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
            if comm.is_main_process():
                dataset_results = add_notes(dataset_results, load_dataset(name).categories)
                results[name] = dataset_results
                files.dump_json(folder / "metrics.json", dataset_results)
                if cfg.TEST.EXPORT and evaluators is None:
                    write_report(cfg, name, dataset_results)
                _log_headlines(name, dataset_results)
        if not comm.is_main_process():
            return {}
        results = next(iter(results.values())) if len(results) == 1 else results
        files.dump_json(Path(cfg.OUTPUT_DIR) / "metrics.json", results)
        return results


def select_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results without tables per class, undefined metrics and notes, in the form that Detectron2's hooks accept."""
    numbers: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and key != "per_class":
            numbers[key] = select_numbers(value)
        elif isinstance(value, (int, float)):
            numbers[key] = float(value)
    return numbers


def _with_class_counts(cfg: CfgNode) -> CfgNode:
    """A copy whose class counts are those of the training dataset, as `prepare_config` sets them."""
    cfg = with_segkit_keys(cfg).clone()
    cfg.defrost()
    resolve_class_counts(cfg, load_datasets(cfg.DATASETS.TRAIN)[0])
    cfg.freeze()
    return cfg


def _build_mapper(cfg: CfgNode, datasets: list[Dataset], is_train: bool) -> Any:
    uses_segkit_mapper = {dataset.uses_segkit_mapper for dataset in datasets}
    if len(uses_segkit_mapper) > 1:
        problem = f"segkit's and Detectron2's datasets cannot be mixed: {[dataset.name for dataset in datasets]}"
        raise ConfigError(problem, where="DATASETS.TRAIN", remedy="use the names that start with segkit_")
    if uses_segkit_mapper == {False} and is_train:
        return None  # the loader then uses Detectron2's DatasetMapper
    return SegkitMapper.from_config(cfg, datasets[0], is_train, *datasets[1:])


def _build_evaluators(cfg: CfgNode, name: str, folder: Path) -> DatasetEvaluators:
    """The evaluators of the dataset's metrics, and one that draws some images if files are written."""
    dataset = load_dataset(name)
    evaluators = build_evaluators(cfg, dataset, folder)
    if not cfg.TEST.EXPORT:
        return evaluators
    ground_truth = GroundTruth(dataset, get_thing_channels(cfg, dataset))
    return DatasetEvaluators([evaluators, SampleEvaluator(ground_truth, get_report_folder(cfg, name) / GRID)])


def _broadcast_buffers(model: torch.nn.Module) -> None:
    """Send the running statistics of the main process to the others: only the main process's model is saved."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _log_size(cfg: CfgNode, model: torch.nn.Module) -> None:
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(n for n, _ in numbers) / 1e6, sum(n for n, is_trained in numbers if is_trained) / 1e6
    text = "%s: %.1f million weights, %.1f million of them trained, on %s"
    logger.info(text, cfg.MODEL.META_ARCHITECTURE, total, trained, cfg.MODEL.DEVICE)


def _log_headlines(name: str, results: Mapping[str, Any]) -> None:
    for group in read_groups(results):
        headlines = {k: v for k, v in group.headline.items() if isinstance(v, float)}
        text = ", ".join(f"{key} {value:.2f}" for key, value in headlines.items())
        logger.info("%s %s: %s", name, group.task, text or "no metrics")
    for note in results.get(NOTES, ()):
        logger.info("%s: %s", name, note)
