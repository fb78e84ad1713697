"""The whole training or evaluation job, on one process or many, on one machine or many."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.utils.logger import setup_logger

from segkit.data.catalog import describe_difference, load_dataset
from segkit.data.datasets.custom import register_custom
from segkit.engine import register_all
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, saved_classes
from segkit.engine.setup import prepare_config
from segkit.engine.trainer import Trainer, numbers_only
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

# Longer than any evaluation on rank 0 should take; a process that died is then noticed rather than waited for.
TIMEOUT = timedelta(minutes=30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Detectron2's training arguments, word for word."""
    for action in default_argument_parser()._actions:
        if not isinstance(action, argparse._HelpAction):
            parser._add_action(action)


def run(args: argparse.Namespace) -> int:
    """Check config and data once, in this process, then train or evaluate in as many processes as asked for."""
    setup_logger(name="segkit")
    cfg = prepare_config(args.config_file, args.opts, train=not args.eval_only)
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if on_gpu and args.num_gpus > torch.cuda.device_count():
        raise ConfigError(f"--num-gpus {args.num_gpus}, but this machine has {torch.cuda.device_count()}")
    launch(
        run_worker,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(cfg, args),
        timeout=TIMEOUT,
    )
    return 0


def run_in_this_process(cfg: CfgNode) -> dict[str, Any]:
    """Train with a checked config in this process; the results of the last evaluation."""
    args = argparse.Namespace(eval_only=False, resume=False, config_file="")
    return run_worker(cfg, args) or {}


def run_worker(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any] | None:
    """What each process does with a checked config; a process that was just started knows no dataset yet."""
    if comm.get_world_size() > 1:
        register_all()
        register_custom(cfg.DATASETS.CUSTOM)
    default_setup(cfg, args)
    fresh = comm.get_world_size() > 1  # else this process has segkit's log on its terminal already
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="segkit", configure_stdout=fresh)
    return evaluate(cfg, resume=args.resume) if args.eval_only else train(cfg, resume=args.resume)


def train(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any] | None:
    """Train, with checkpoints, evaluation every TEST.EVAL_PERIOD iterations and at the end; the last results."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return getattr(trainer, "_last_eval_results", None)


def evaluate(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS (resume: the last checkpoint of OUTPUT_DIR), and compare with TEST.EXPECTED_RESULTS."""
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR)
    last = checkpointer.get_checkpoint_file() if resume and checkpointer.has_checkpoint() else cfg.MODEL.WEIGHTS
    checkpointer.load_for_inference(last)
    _check_classes(last, cfg.DATASETS.TEST)
    results = Trainer.test(cfg, model)
    if comm.is_main_process() and len(cfg.TEST.EXPECTED_RESULTS):
        verify_results(cfg, numbers_only(results))
    return results


def _check_classes(weights: str, names: Sequence[str]) -> None:
    """ConfigError where the weights know a dataset's classes in another order; a warning where they know others."""
    saved, _ = saved_classes(weights)
    if saved is None:
        return
    for name in names:
        categories = load_dataset(name).categories
        known, given = ([(c.name, c.isthing) for c in each.categories] for each in (saved, categories))
        if known == given:
            continue
        difference = describe_difference(saved, categories)
        if sorted(known) == sorted(given):
            problem = f"the weights know the classes of {name} in another order: {difference}"
            raise ConfigError(problem, where=weights, remedy="give the dataset's categories the ids of the training")
        logger.warning("%s: trained on other classes than %s has: %s", weights, name, difference)
