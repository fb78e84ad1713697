"""What a training is built of: each part may be replaced by a subclass of `Trainer`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils.events import EventWriter

from segkit.config import with_segkit_keys
from segkit.data.catalog import load_datasets
from segkit.data.class_counts import resolve_class_counts
from segkit.data.class_weights import resolve_class_weights
from segkit.data.input_channels import resolve_input_channels
from segkit.engine.model_evaluation import build_evaluator, build_test_loader, evaluate_model
from segkit.engine.training.compiled import CompileReport
from segkit.engine.training.data import build_train_loader
from segkit.engine.training.ema import WeightEMA
from segkit.engine.training.hooks import Checkpoints, Evaluation, LearningRate, PreciseBatchNorm, check_patience
from segkit.engine.training.loader import TrainingLoader
from segkit.engine.training.optimizers import build_optimizer
from segkit.engine.training.progress_bar import ProgressBar
from segkit.engine.training.schedules import build_lr_scheduler
from segkit.engine.training.speed import Speed
from segkit.engine.training.trackers import build_trackers
from segkit.engine.training.writers import JsonLines, LogLine, TensorBoardWriter, Writers

logger = logging.getLogger(__name__)


class TrainerParts(TrainerBase):
    """Builds the parts of a training, by the names of Detectron2's `DefaultTrainer`.

    Attributes:
        cfg: the config, with its class counts.
        scheduler: of the learning rate.
        ema: averages the weights; None without SOLVER.EMA.ENABLED.
        compiled: the parts of the model that are compiled.
        model: the model.
        seed: of the run.
    """

    cfg: CfgNode
    model: torch.nn.Module
    seed: int
    scheduler: Any
    ema: WeightEMA | None
    compiled: Any

    def build_hooks(self) -> list[HookBase | None]:
        """Build the hooks: timing, learning rate, checkpoints, evaluation, logs.

        Returns:
            The hooks in the order in which they are called. Checkpoints come before the evaluation: if it fails, the
            checkpoint is there.
        """
        cfg = self.cfg
        built: list[HookBase | None] = [
            Speed(cfg.SOLVER.IMS_PER_BATCH),
            LearningRate(scheduler=self.scheduler),
            self.ema,
            CompileReport(self.compiled, cfg.SOLVER.LOG_PERIOD) if self.compiled else None,
            self._build_precise_bn() if cfg.TEST.PRECISE_BN.ENABLED else None,
        ]
        built += [
            Checkpoints(cfg.SOLVER.CHECKPOINT_PERIOD),
            Evaluation(cfg.TEST.EVAL_PERIOD, cfg.TEST.BEST_METRIC, check_patience(cfg)),
        ]
        if comm.is_main_process():
            built += [Writers(self.build_writers()), ProgressBar()]
        return built

    def build_writers(self) -> list[EventWriter]:
        """Build the writers for the log, TensorBoard, `training.jsonl` and the trackers of LOG.

        Returns:
            The writers.

        Raises:
            ConfigError: the package of a tracker is not installed.
        """
        output, period = Path(self.cfg.OUTPUT_DIR), self.cfg.SOLVER.LOG_PERIOD
        output.mkdir(parents=True, exist_ok=True)
        files = [JsonLines(output / "training.jsonl", period), TensorBoardWriter(output, period)]
        return [LogLine(period), *files, *build_trackers(self.cfg)]

    def build_own_loader(self) -> Any:
        """Call `build_train_loader` with the seed of the run, or by the signature of Detectron2's trainer.

        Returns:
            What it returns.
        """
        build: Callable[..., Any] = self.build_train_loader
        takes_seed = len(inspect.signature(build).parameters) > 1
        return build(self.cfg, self.seed) if takes_seed else build(self.cfg)

    def _build_precise_bn(self) -> HookBase:
        loader = self.build_own_loader()
        kind = PreciseBatchNorm if isinstance(loader, TrainingLoader) else hooks.PreciseBN
        return kind(self.cfg.TEST.EVAL_PERIOD, self.model, loader, self.cfg.TEST.PRECISE_BN.NUM_ITER)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Build the model.

        Args:
            cfg: config of `prepare_config`.

        Returns:
            The model, on its device.
        """
        model: torch.nn.Module = DefaultTrainer.build_model(cfg)  # it writes the structure to log.txt
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer, see `build_optimizer`.

        Args:
            cfg: config of `prepare_config`.
            model: the model.

        Returns:
            The optimizer.
        """
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Build the schedule of the learning rate, see `build_lr_scheduler`.

        Args:
            cfg: config of `prepare_config`.
            optimizer: whose learning rates it sets.

        Returns:
            A scheduler of torch.
        """
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, seed: int | None = None) -> Any:
        """Build the loader, see `build_train_loader`.

        A subclass may leave out the seed, as Detectron2's trainer does, and return any iterable of batches. Then a
        resumed training begins with the first images.

        Args:
            cfg: config of `prepare_config`.
            seed: of the run; None: by `choose_seed`.

        Returns:
            The loader.
        """
        return build_train_loader(cfg, choose_seed(cfg) if seed is None else seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the loader of a test dataset, see `build_test_loader`.

        Args:
            cfg: config of `prepare_config`.
            dataset_name: one of DATASETS.TEST.

        Returns:
            The loader.
        """
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | Path | None = None) -> Any:
        """Build the evaluator of a test dataset, see `build_evaluator`.

        Args:
            cfg: config of `prepare_config`.
            dataset_name: one of DATASETS.TEST.
            output_folder: for its files; None: that of the dataset in OUTPUT_DIR.

        Returns:
            An evaluator of Detectron2's interface.
        """
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every dataset of DATASETS.TEST, see `evaluate_model`.

        Args:
            cfg: config of `prepare_config`.
            model: the model.
            evaluators: evaluators to use instead of those of the config.

        Returns:
            The results.
        """
        return evaluate_model(cfg, model, evaluators, cls.build_test_loader, cls.build_evaluator)


def choose_seed(cfg: CfgNode) -> int:
    """Choose the seed of a run.

    Args:
        cfg: any config.

    Returns:
        SEED, or if it is negative a random number, the same on all processes.
    """
    return int(cfg.SEED) if cfg.SEED >= 0 else int(comm.shared_random_seed())


def with_class_counts(cfg: CfgNode) -> CfgNode:
    """Set the class counts, class weights and input channels as `prepare_config` does.

    Args:
        cfg: any config with DATASETS.TRAIN.

    Returns:
        A copy whose class counts, class weights and input channels are those of the training datasets.
    """
    cfg = with_segkit_keys(cfg).clone()
    cfg.defrost()
    datasets = load_datasets(cfg.DATASETS.TRAIN)
    resolve_class_counts(cfg, datasets[0])
    resolve_class_weights(cfg, datasets)
    resolve_input_channels(cfg, datasets, datasets)
    cfg.freeze()
    return cfg


def distribute(model: torch.nn.Module, *, static_graph: bool = False) -> torch.nn.Module:
    """Wrap a model in DistributedDataParallel, if there are more processes than one.

    Args:
        model: the model.
        static_graph: every loss touches every weight in every step, so that the order of the gradients is planned once.

    Returns:
        The wrapped model, or the model itself.
    """
    # On the CPU, where gloo synchronises the gradients, device_ids must not be given.
    ids = {} if next(model.parameters()).is_cuda else {"device_ids": None}
    options = {"broadcast_buffers": False, "gradient_as_bucket_view": True, "static_graph": static_graph, **ids}
    distributed: torch.nn.Module = create_ddp_model(model, **options)
    return distributed


def log_size(cfg: CfgNode, model: torch.nn.Module) -> None:
    """Log how many weights a model has.

    Args:
        cfg: its config.
        model: the model.
    """
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(n for n, _ in numbers) / 1e6, sum(n for n, is_trained in numbers if is_trained) / 1e6
    text = "%s: %.1f million weights, %.1f million of them trained, on %s"
    logger.info(text, cfg.MODEL.META_ARCHITECTURE, total, trained, cfg.MODEL.DEVICE)
