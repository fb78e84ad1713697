"""`segkit train`: train and evaluate a model, with Detectron2's arguments."""

from __future__ import annotations

import argparse
import math

from segkit.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `detectron2.engine.default_argument_parser`, which is not imported here."""
    arguments.add_config_file(parser, "what to train and how", default="")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint of OUTPUT_DIR")
    eval_only = "do not train; evaluate MODEL.WEIGHTS, or with the config.yaml of a run its last checkpoint"
    parser.add_argument("--eval-only", action="store_true", help=eval_only)
    # None: not given. torchrun and Slurm start the processes themselves, and arguments must not contradict them.
    parser.add_argument("--num-gpus", type=int, metavar="N", help="processes per machine, one per GPU (default: 1)")
    parser.add_argument("--num-machines", type=int, metavar="N", help="number of machines (default: 1)")
    parser.add_argument("--machine-rank", type=int, metavar="I", help="rank of this machine, from 0 (default: 0)")
    url = "tcp://HOST:PORT of the first machine, where the processes meet (default: a free port of this machine)"
    parser.add_argument("--dist-url", metavar="URL", help=url)
    replay = "run a step again that a training has skipped, and print its losses; FILE stands in the log"
    parser.add_argument("--replay", metavar="FILE", help=replay)
    arguments.add_plugins(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=None, help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> None:
    """Train or evaluate: `run_job` has a parameter for each argument."""
    arguments.load_plugins(args)
    if args.replay:
        _replay(args)
        return
    from segkit.engine.jobs import run_job

    run_job(**{name: value for name, value in vars(args).items() if name not in ("plugins", "replay")})


def _replay(args: argparse.Namespace) -> None:
    from segkit.engine.training.replay import replay_step

    for number, losses in enumerate(replay_step(args.replay, args.config_file, args.opts)):
        for name, value in losses.items():
            print(f"forward pass {number}: {name} {value:.6g}{'' if math.isfinite(value) else '  <- not finite'}")
