"""The whole training or evaluation job: in one process or many, on one machine or many."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import detectron2.utils.comm as comm
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils.logger import setup_logger

from segkit.data.catalog import describe_difference, load_dataset
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.engine.checkpoints.newest import has_checkpoints
from segkit.engine.distributed.fingerprints import check_machines_agree, check_world_size
from segkit.engine.distributed.joining import connect_group
from segkit.engine.distributed.launch_plan import plan_launch
from segkit.engine.distributed.peers import Peers
from segkit.engine.distributed.ranks import run_ranks
from segkit.engine.outcome import check_expected_results, print_outcome
from segkit.engine.run_config import write_run_config
from segkit.engine.run_lock import RunLock, RunLockHook, hold_run_folder
from segkit.engine.run_record import write_run_record
from segkit.engine.setup import prepare_config
from segkit.engine.terminal_log import keep_records, shorten_terminal_log, write_records
from segkit.engine.test_time_augmentation import augment_for_test
from segkit.engine.training.schedules import scale_schedule
from segkit.engine.training.trackers import check_trackers
from segkit.engine.training.trainer import Trainer
from segkit.engine.training.tuning import tune
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.config_files import find_config_file
from segkit.utils.errors import ConfigError
from segkit.utils.files import convert_write_errors
from segkit.utils.plugins import get_plugin_sources, load_plugins
from segkit.utils.signals import raising_terminated
from segkit.utils.terminal import color_logs, escape_output

logger = logging.getLogger(__name__)


def run_job(
    config_file: str,
    opts: Sequence[str],
    *,
    eval_only: bool = False,
    resume: bool = False,
    num_gpus: int | None = None,
    num_machines: int | None = None,
    machine_rank: int | None = None,
    dist_url: str | None = None,
) -> None:
    """Check config and data, then train or evaluate: as one rank of torchrun or Slurm, or in `num_gpus` processes.

    Args:
        config_file: YAML file, or name of a recipe; "": none.
        opts: KEY VALUE pairs that override the config file.
        eval_only: evaluate MODEL.WEIGHTS instead of training.
        resume: continue from (or evaluate) the last checkpoint of OUTPUT_DIR.
        num_gpus: see `plan_launch`; so are the next three.
        num_machines: machines of the job.
        machine_rank: rank of this machine, from 0.
        dist_url: where the processes meet.

    Raises:
        ConfigError: a config that cannot run, or arguments that contradict each other or the launcher's variables.
        DatasetError: damaged files of a dataset.
        JobError: a process of the job does not start, is killed or stopped.
        SystemExit: this rank ends because of an error that another one prints.
    """
    plan = plan_launch(num_gpus, num_machines, machine_rank, dist_url)
    config_file = str(find_config_file(config_file)) if config_file else ""
    run_ranks(plan, _run_rank, config_file, [*opts], eval_only, resume, get_plugin_sources())


def _run_rank(
    peers: Peers, config_file: str, opts: Sequence[str], eval_only: bool, resume: bool, plugins: Sequence[str]
) -> None:
    """Check config and data in rank 0, then on the others that they have the same; train or evaluate."""

    def prepare() -> CfgNode:
        cfg = prepare_config(config_file, opts, train=not eval_only, check=peers.rank == 0)
        if not eval_only:
            cfg = scale_schedule(cfg, peers.world_size)
            check_world_size(cfg, peers.world_size)
            if peers.rank == 0:
                check_trackers(cfg)
        return cfg

    load_plugins(plugins)  # a started process begins without
    setup_logger(distributed_rank=peers.rank, name="segkit")
    color_logs()
    with keep_records() as records:
        cfg = peers.main_first("prepared", prepare)
    if peers.world_size > 1:
        check_machines_agree(peers, cfg, [*(() if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST])
        connect_group(peers, cfg.MODEL.DEVICE)
    run_in_this_process(cfg, eval_only, resume, config_file, records, opts)


def run_in_this_process(
    cfg: CfgNode,
    eval_only: bool = False,
    resume: bool = False,
    config_file: str = "",
    records: Sequence[logging.LogRecord] = (),
    opts: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Train or evaluate with a config of `prepare_config`, as one process of the job; print and check the outcome.

    Args:
        cfg: the checked config.
        eval_only: evaluate MODEL.WEIGHTS instead of training.
        resume: continue from (or evaluate) the last checkpoint of OUTPUT_DIR.
        config_file: path of the file, for Detectron2's log and run.json.
        records: what the checks have logged, for the log file.
        opts: KEY VALUE pairs that override the config file, for run.json.

    Returns:
        The results of the last evaluation, None if there was none.

    Raises:
        ConfigError: the results are not those of TEST.EXPECTED_RESULTS, see `check_expected_results`.
        RunLockError: another training writes into OUTPUT_DIR.
    """
    holds_folder = comm.is_main_process() and not eval_only and "://" not in cfg.OUTPUT_DIR
    holding: AbstractContextManager[RunLock | None] = hold_run_folder(cfg.OUTPUT_DIR) if holds_folder else nullcontext()
    with escape_output(), raising_terminated(), holding as lock:  # the commands do the first two; a spawned process not
        rank = comm.get_rank()
        with convert_write_errors(Path(cfg.OUTPUT_DIR)):
            shorten_terminal_log(cfg.OUTPUT_DIR, rank)
            default_setup(cfg, SimpleNamespace(config_file=config_file, eval_only=eval_only, resume=resume))
        # `run_job` has sent segkit's log to the terminal already.
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="segkit", configure_stdout=False)
        color_logs()
        if comm.is_main_process():
            write_run_config(cfg)  # in place of Detectron2's, whose paths are those of the working directory
            write_records(records)
        write_run_record(cfg, config_file, opts, eval_only=eval_only, resume=resume)
        results = evaluate(cfg, resume=resume) if eval_only else train(cfg, resume=resume, lock=lock)
        if comm.is_main_process():
            print_outcome(cfg, results, trained=not eval_only)
            check_expected_results(cfg, results)
        return results


def train(cfg: CfgNode, *, resume: bool = False, lock: RunLock | None = None) -> dict[str, Any] | None:
    """Train, write checkpoints, and evaluate every TEST.EVAL_PERIOD iterations and at the end.

    An architecture without gradients is tuned and evaluated (`tune`). With `resume`, a finished tuning is evaluated
    only; an unfinished one has no checkpoint, and begins again.

    Args:
        cfg: config of `prepare_config`.
        resume: continue from the last checkpoint of OUTPUT_DIR.
        lock: the lock of OUTPUT_DIR; the training stops if it is lost.

    Returns:
        The results of the last evaluation, None if there was none.
    """
    if get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).training == "grid":
        if resume and has_checkpoints(cfg.OUTPUT_DIR):
            logger.info("%s: the tuning is finished, its weights are evaluated", cfg.OUTPUT_DIR)
            return evaluate(cfg, resume=True) if cfg.DATASETS.TEST else None
        model = Trainer.build_model(cfg)
        tune(cfg, model, lock.check if lock else None)
        return Trainer.test(cfg, model) if cfg.DATASETS.TEST else None
    trainer = Trainer(cfg)
    trainer.register_hooks([RunLockHook(lock)] if lock else [])
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer.results


def evaluate(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS, with test-time augmentation if TEST.AUG.ENABLED is True.

    Args:
        cfg: config of `prepare_config`.
        resume: evaluate the last checkpoint of OUTPUT_DIR instead, if there is one.

    Returns:
        The results, see `evaluate_model`.

    Raises:
        ConfigError: the weights know the classes of a dataset in another order, or TEST.AUG does not fit the model.
    """
    model = Trainer.build_model(cfg)
    test_cfg, test_model = augment_for_test(cfg, model)
    checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR)
    weights = checkpointer.get_checkpoint_file() if resume and checkpointer.has_checkpoint() else cfg.MODEL.WEIGHTS
    checkpointer.load_for_inference(weights)
    _check_classes(weights, cfg.DATASETS.TEST)
    return Trainer.test(test_cfg, test_model)


def _check_classes(weights: str, dataset_names: Sequence[str]) -> None:
    """ConfigError if the weights have a dataset's classes in another order; a warning if they have other classes."""
    trained, _ = load_saved_classes(weights)
    if trained is None:
        return
    for name in dataset_names:
        categories = load_dataset(name).categories
        trained_classes, classes = ([(c.name, c.isthing) for c in each.categories] for each in (trained, categories))
        if trained_classes == classes:
            continue
        difference = describe_difference(trained, categories)
        if sorted(trained_classes) == sorted(classes):
            problem = f"the weights have the classes of {name} in another order: {difference}"
            raise ConfigError(problem, where=weights, remedy="give the dataset's categories the ids of the training")
        logger.warning("%s: trained on other classes than %s has: %s", weights, name, difference)
