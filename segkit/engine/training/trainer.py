"""The training of a config: model, loader, optimizer and hooks, and the loop over its steps."""

from __future__ import annotations

import logging
import signal
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, create_ddp_model
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventStorage, EventWriter

from segkit.config import with_segkit_keys
from segkit.data.catalog import load_dataset, load_datasets
from segkit.data.class_counts import resolve_class_counts
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.model_evaluation import build_test_loader, evaluate_model
from segkit.engine.training.classes import CategoriesInCheckpoint
from segkit.engine.training.compiled import CompileReport, compile_parts
from segkit.engine.training.data import build_train_loader
from segkit.engine.training.ema import WeightEMA
from segkit.engine.training.faults import FaultGuard, RunningStatistics, guard_divergence
from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.head_logging import heads_logging
from segkit.engine.training.hooks import Checkpoints, Evaluation, LearningRate, check_patience
from segkit.engine.training.loader import TrainingLoader
from segkit.engine.training.losses import LossSums
from segkit.engine.training.model_options import check_static_graph, prepare_model, set_deterministic
from segkit.engine.training.optimizers import build_optimizer
from segkit.engine.training.progress_bar import ProgressBar
from segkit.engine.training.schedules import build_lr_scheduler, scale_schedule
from segkit.engine.training.seeds import STEP, seed_generators
from segkit.engine.training.speed import Speed
from segkit.engine.training.step import StepResult, TrainingStep
from segkit.engine.training.stop import StopRequest
from segkit.engine.training.trackers import build_trackers
from segkit.engine.training.writers import JsonLines, LogLine, TensorBoardWriter, Writers
from segkit.utils.errors import CheckpointError
from segkit.utils.signals import Terminated

logger = logging.getLogger(__name__)

VERSION = 1  # of the state in checkpoints


class Trainer(TrainerBase):
    """Trains as a config says, from its weights or from the last checkpoint of its folder.

    Everything that a later step depends on is in `state_dict`, or follows from the seed and the number of the step:
    a training that is interrupted and resumed has the same weights, to the bit, as one that is not.

    Hooks are Detectron2's `HookBase`; `build_*` and `test` may be replaced by a subclass, as in `DefaultTrainer`.

    Args:
        cfg: config of `prepare_config`, or of `add_segkit_config` with DATASETS.TRAIN.

    Attributes:
        cfg: the config, with its class counts.
        model: the model, in DistributedDataParallel if there are more processes than one.
        optimizer: its optimizer.
        scheduler: of the learning rate.
        compiled: parts of the model that are compiled.
        ema: averages the weights; None without SOLVER.EMA.ENABLED.
        last_step: what the last step has left on the device.
        loader: gives this process's images.
        results: of the last evaluation; None if there was none.
        is_finished: the last iteration is done.
        data_seconds: that this process has waited for images.

    Raises:
        ConfigError: a class count contradicts the dataset, or the datasets contradict each other.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.cfg = cfg = scale_schedule(_with_class_counts(cfg), comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.seed = choose_seed(cfg)
        seed_generators(self.seed)
        if cfg.SOLVER.DETERMINISTIC:
            set_deterministic()
        model = self.build_model(cfg)
        prepare_model(cfg, model)
        self.compiled = compile_parts(cfg, model)
        _log_size(cfg, model)
        self.optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        self.loader = self.data_loader = self.build_train_loader(cfg, self.seed)
        guard_divergence(model)
        self.model = distribute(model, static_graph=check_static_graph(cfg))
        self.model.train()
        device = next(self.model.parameters()).device
        self.flags = FlagExchange(device)
        self.ema = WeightEMA(cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self.last_step: StepResult
        self.step = TrainingStep(cfg, self.model, self.optimizer, self.flags, self.after_backward)
        self.losses = LossSums()
        limits = cfg.SOLVER.MAX_SKIPPED_STEPS, comm.get_rank(), self.flags.lag, cfg.DATALOADER.MAX_UNREADABLE
        self.faults = FaultGuard(Path(cfg.OUTPUT_DIR), *limits)
        self.statistics = RunningStatistics(model, self.flags.lag)
        self.results: dict[str, Any] | None = None
        self.is_finished = False
        self.stop_request = StopRequest()
        self._stop_signal, self.data_seconds = 0, 0.0
        self._saved_iter = -1
        categories = load_dataset(cfg.DATASETS.TRAIN[0]).categories
        classes = CategoriesInCheckpoint(categories, cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS, cfg.PLUGINS)
        states: dict[str, Any] = {"trainer": weakref.proxy(self), "segkit": classes}
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, keep=cfg.SOLVER.CHECKPOINT_KEEP, **states)
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest checkpoint of OUTPUT_DIR, or load MODEL.WEIGHTS to start from.

        Args:
            resume: continue, if there is a checkpoint.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resumes:
            self.start_iter = self._saved_iter + 1

    def train(self) -> None:
        """Train up to SOLVER.MAX_ITER, or until a signal asks for the end.

        Raises:
            Terminated: SIGTERM or SIGUSR2 came; the training is saved.
        """
        with EventStorage(self.start_iter) as self.storage, self.stop_request:
            logger.info("Starting training from iteration %d", self.start_iter)
            self.iter = self.start_iter
            try:
                self.before_train()
                while self.iter < self.max_iter:  # a hook may end the training early
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self._stop_signal:
                        self.save()
                        break
                    self.iter += 1
                else:
                    self._read_flags(everything=True)
                    self.iter, self.is_finished = self.max_iter, True
            finally:
                self.loader.close()
                self.after_train()
        if self._stop_signal:
            name = signal.Signals(self._stop_signal).name
            logger.warning("%s: saved after iteration %d; --resume goes on from it", name, self.iter)
            raise Terminated(self._stop_signal)

    def run_step(self) -> None:
        """Take one step: see `TrainingStep`."""
        seed_generators(self.seed, STEP, self.iter, comm.get_rank())
        begin = time.perf_counter()
        try:
            parts = self.loader.next_step()
            self.data_seconds += time.perf_counter() - begin
            self.statistics.keep(self.iter)
            with heads_logging(self.ends_period()):
                reports = self.stop_request.number, len(self.loader.unreadable)
                self.last_step = result = self.step(self.iter, parts, *reports)
        except RuntimeError as error:
            if (problem := self.loader.explain(error)) is None:
                raise
            raise problem from error
        self.losses.add(result.losses)
        self.faults.remember(self.iter, parts, result.part_losses, self.optimizer.param_groups[0]["lr"])
        self._read_flags()
        if self.ends_period():  # every process must read
            self.storage.put_scalars(**self.losses.read(), smoothing_hint=False)

    def ends_period(self) -> bool:
        """Whether this iteration is the last one of SOLVER.LOG_PERIOD iterations, of all, or before a stop.

        Returns:
            The same on all processes.
        """
        done, period = self.iter + 1, self.cfg.SOLVER.LOG_PERIOD
        return done >= self.max_iter or self._stop_signal != 0 or (period > 0 and done % period == 0)

    def save(self) -> None:
        """Write the checkpoint of this iteration, unless it is written; the main process writes."""
        if self._saved_iter != self.iter:
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        self._saved_iter = self.iter

    def state_dict(self) -> dict[str, Any]:
        """Everything that the following steps depend on, beside the model.

        Returns:
            Numbers, texts and tensors.
        """
        state = {"version": VERSION, "seed": self.seed, "processes": comm.get_world_size(), **super().state_dict()}
        state["iteration"] = min(self.iter, self.max_iter - 1)  # the last one that was done
        state |= {
            "data": self.loader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "skipped": self.faults.skipped,
        }
        return {**state, "scheduler": self.scheduler.state_dict(), "scaler": self.step.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Learning rates, weight decay and the schedule are those of the config.

        Args:
            state: of `state_dict`.

        Raises:
            CheckpointError: the state is of another trainer or version.
        """
        if state.get("version") != VERSION:
            problem = f"expected a training state of version {VERSION}, got {state.get('version')}"
            remedy = "start from its weights: MODEL.WEIGHTS, without --resume"
            raise CheckpointError(problem, remedy=remedy)
        super().load_state_dict(dict(state))
        self._saved_iter = self.iter
        self.seed, self.faults.skipped = state["seed"], state["skipped"]
        if state["processes"] != comm.get_world_size():
            text = "the checkpoint is of %d processes, now there are %d: the images stay the same, in other shares"
            logger.warning(text, state["processes"], comm.get_world_size())
        self.loader.load_state_dict(state["data"])
        _load_optimizer(self.optimizer, state["optimizer"])
        _load_scheduler(self.scheduler, state["scheduler"], self.iter + 1)
        self.step.scaler.load_state_dict(state["scaler"])

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
    def build_train_loader(cls, cfg: CfgNode, seed: int) -> TrainingLoader:
        """Build the loader, see `build_train_loader`.

        Args:
            cfg: config of `prepare_config`.
            seed: of the run.

        Returns:
            The loader.
        """
        return build_train_loader(cfg, seed)

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
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every dataset of DATASETS.TEST, see `evaluate_model`.

        Args:
            cfg: config of `prepare_config`.
            model: the model.
            evaluators: evaluators to use instead of those of the config.

        Returns:
            The results.
        """
        return evaluate_model(cfg, model, evaluators, cls.build_test_loader)

    def _read_flags(self, everything: bool = False) -> None:
        for flags in self.flags.read(everything):
            self._stop_signal = self._stop_signal or flags.stop_signal
            if flags.bad_loss or flags.bad_gradient:
                self.statistics.restore(flags.iteration)
            self.faults.check(flags, self.checkpointer.model, self.seed)


def choose_seed(cfg: CfgNode) -> int:
    """Choose the seed of a run.

    Args:
        cfg: any config.

    Returns:
        SEED, or if it is negative a random number, the same on all processes.
    """
    return int(cfg.SEED) if cfg.SEED >= 0 else int(comm.shared_random_seed())


def _with_class_counts(cfg: CfgNode) -> CfgNode:
    """A copy whose class counts are those of the training dataset, as `prepare_config` sets them."""
    cfg = with_segkit_keys(cfg).clone()
    cfg.defrost()
    resolve_class_counts(cfg, load_datasets(cfg.DATASETS.TRAIN)[0])
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


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the momenta; the hyperparameters stay those of the config."""
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)
    for parameter, values in optimizer.state.items():  # fused kernels need the memory format of the weights
        for key, value in values.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _load_scheduler(scheduler: Any, state: dict[str, Any], steps: int) -> None:
    """Set the learning rates of the next step."""
    if isinstance(scheduler, LRMultiplier):  # they follow from the config and the number of the step
        scheduler.last_epoch = steps
        for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_lr(), strict=True):
            group["lr"] = lr
    else:
        scheduler.load_state_dict(state)


def _log_size(cfg: CfgNode, model: torch.nn.Module) -> None:
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(n for n, _ in numbers) / 1e6, sum(n for n, is_trained in numbers if is_trained) / 1e6
    text = "%s: %.1f million weights, %.1f million of them trained, on %s"
    logger.info(text, cfg.MODEL.META_ARCHITECTURE, total, trained, cfg.MODEL.DEVICE)
