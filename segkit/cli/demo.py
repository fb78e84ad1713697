"""`segkit demo`: toy scenes, training, evaluation, export and images in one go."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments

RECIPE = "toy/panoptic_point_rend_R18_FPN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output", type=Path, default=Path("output/demo"), metavar="DIR", help="default: %(default)s")
    arguments.add_config_file(parser, "what to train (default: %(default)s)", default=RECIPE)
    arguments.add_plugins(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs")


def run(args: argparse.Namespace) -> None:
    """Run the demo, which prints its results and paths."""
    arguments.load_plugins(args)
    from segkit.engine.demo import run_demo

    run_demo(args.config_file, args.output, args.opts)
