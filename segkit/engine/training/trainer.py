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
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from segkit.data.catalog import load_dataset
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.timm_weights import load_timm_weights
from segkit.engine.training.classes import CategoriesInCheckpoint
from segkit.engine.training.compiled import compile_parts
from segkit.engine.training.divergence import guard_divergence
from segkit.engine.training.ema import WeightEMA
from segkit.engine.training.faults import FaultGuard, RunningStatistics
from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.foreign_loader import ForeignLoader
from segkit.engine.training.head_logging import heads_logging
from segkit.engine.training.loader import TrainingLoader
from segkit.engine.training.losses import LossSums
from segkit.engine.training.model_options import check_static_graph, prepare_model, set_deterministic
from segkit.engine.training.parts import TrainerParts, choose_seed, distribute, log_size, with_class_counts
from segkit.engine.training.schedules import scale_schedule
from segkit.engine.training.seeds import STEP, seed_generators
from segkit.engine.training.states import load_optimizer, load_scheduler, save_optimizer
from segkit.engine.training.step import StepResult, TrainingStep
from segkit.engine.training.stop import StopRequest
from segkit.engine.training.values import check_values
from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.signals import Terminated

logger = logging.getLogger(__name__)

VERSION = 1  # of the state in checkpoints


class Trainer(TrainerParts):
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
        data_loader: what `build_train_loader` gives: a `TrainingLoader`, or a loader of batches as in Detectron2.
        loader: gives this process's images.
        results: of the last evaluation; None if there was none.
        is_finished: the last iteration is done.
        data_seconds: that this process has waited for images.

    Raises:
        ConfigError: a number is out of range, a class count contradicts the dataset, or the datasets contradict each
            other.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        cfg = with_class_counts(cfg)
        check_values(cfg)
        self.cfg = cfg = scale_schedule(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.seed = choose_seed(cfg)
        seed_generators(self.seed)
        if cfg.SOLVER.DETERMINISTIC:
            set_deterministic()
        model = self.build_model(cfg)
        prepare_model(cfg, model)
        self.compiled = compile_parts(cfg, model)
        log_size(cfg, model)
        self.optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        self.data_loader = self.build_own_loader()
        is_own = isinstance(self.data_loader, TrainingLoader)
        self.loader = self.data_loader if is_own else ForeignLoader(self.data_loader, cfg.SOLVER.ACCUMULATION_STEPS)
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
        self._unreadable_before = 0  # images skipped before a resume
        categories = load_dataset(cfg.DATASETS.TRAIN[0]).categories
        classes = CategoriesInCheckpoint(categories, cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS, cfg.PLUGINS)
        states: dict[str, Any] = {"trainer": weakref.proxy(self), "segkit": classes}
        keep = {"keep": cfg.SOLVER.CHECKPOINT_KEEP, "keep_classes": cfg.MODEL.KEEP_CLASSES_BY_NAME}
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, **keep, **states)
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest checkpoint of OUTPUT_DIR, or load MODEL.WEIGHTS or MODEL.TIMM.WEIGHTS to start from.

        Args:
            resume: continue, if there is a checkpoint.

        Raises:
            ConfigError: the checkpoint has done more iterations than SOLVER.MAX_ITER.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        if not resumes:
            load_timm_weights(self.cfg, self.checkpointer.model)
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resumes:
            self.start_iter = self._saved_iter + 1
        if self.start_iter > self.max_iter:
            problem = f"the checkpoint has done {self.start_iter} iterations, SOLVER.MAX_ITER is {self.max_iter}"
            remedy = "raise SOLVER.MAX_ITER, move the later checkpoints away, or train in another OUTPUT_DIR"
            raise ConfigError(problem, where=self.cfg.OUTPUT_DIR, remedy=remedy)

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
                reports = self.stop_request.number, self._count_unreadable()
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
            "optimizer": save_optimizer(self.optimizer),
            "skipped": self.faults.skipped,
            "unreadable": max(self.faults.unreadable, self._count_unreadable()),
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
        self._unreadable_before = state.get("unreadable", 0)  # older states do not have it
        if state["processes"] != comm.get_world_size():
            text = "the checkpoint is of %d processes, now there are %d: the images stay the same, in other shares"
            logger.warning(text, state["processes"], comm.get_world_size())
        self.loader.load_state_dict(state["data"])
        load_optimizer(self.optimizer, state["optimizer"])
        load_scheduler(self.scheduler, state["scheduler"], self.iter + 1)
        self.step.scaler.load_state_dict(state["scaler"])

    def _count_unreadable(self) -> int:
        """Images that this process has skipped since the beginning of the run, because they cannot be read."""
        return self._unreadable_before + len(self.loader.unreadable)

    def _read_flags(self, everything: bool = False) -> None:
        for flags in self.flags.read(everything):
            self._stop_signal = self._stop_signal or flags.stop_signal
            if flags.bad_loss or flags.bad_gradient:
                self.statistics.restore(flags.iteration)
            self.faults.check(flags, self.checkpointer.model, self.seed)
