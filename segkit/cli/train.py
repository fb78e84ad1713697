"""`segkit train`: train and evaluate a model, with Detectron2's arguments."""

from __future__ import annotations

import argparse
import os

from segkit.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `detectron2.engine.default_argument_parser`, which is not imported here."""
    user = os.getuid() if hasattr(os, "getuid") else 1
    port = 2**15 + 2**14 + hash(user) % 2**14  # Detectron2's rule: users of one machine get different ports
    arguments.add_config_file(parser, "what to train and how", default="")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint of OUTPUT_DIR")
    eval_only = "do not train; evaluate MODEL.WEIGHTS, or with the config.yaml of a run its last checkpoint"
    parser.add_argument("--eval-only", action="store_true", help=eval_only)
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="GPUs per machine (default: 1)")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="number of machines (default: 1)")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="I", help="rank of this machine, from 0")
    url, where = f"tcp://127.0.0.1:{port}", "where the processes of a distributed job meet, auto for a free port"
    parser.add_argument("--dist-url", default=url, metavar="URL", help=f"{where} (default: %(default)s)")
    arguments.add_plugins(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=None, help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> None:
    """Train or evaluate: `run_job` has a parameter for each argument."""
    arguments.load_plugins(args)
    from segkit.engine.jobs import run_job

    run_job(**{name: value for name, value in vars(args).items() if name != "plugins"})
