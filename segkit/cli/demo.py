"""`segkit demo`: toy scenes, training, evaluation, export and images in one go."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments

CONFIG = Path("configs/toy/panoptic_rcnn_R18_FPN_demo.yaml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output", type=Path, default=Path("output/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--config-file", type=Path, default=CONFIG, metavar="FILE", help="default: %(default)s")
    arguments.add_plugins(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs")


def run(args: argparse.Namespace) -> None:
    """Run the demo, which prints its results and paths."""
    arguments.load_plugins(args)
    from segkit.engine.demo import run_demo

    run_demo(args.config_file, args.output, args.opts)
