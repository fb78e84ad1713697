"""`segkit predict`: images in, overlays and COCO files out."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="config that the weights were trained with"
    )
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint (default: MODEL.WEIGHTS)")
    parser.add_argument("--input", nargs="+", required=True, help="images, folders or patterns")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    arguments.add_plugins(parser)
    arguments.add_drawing_options(parser)
    parser.add_argument("--no-scores", dest="scores", action="store_false", help="write no scores into overlays")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> None:
    """Predict and print the written paths."""
    arguments.load_plugins(args)
    from segkit.engine.predictor import Predictor, find_images, predict
    from segkit.engine.setup import read_config

    images = find_images(args.input)
    cfg = read_config(args.config_file, args.opts)
    cfg.MODEL.WEIGHTS = args.weights or cfg.MODEL.WEIGHTS
    drawing = {**arguments.get_drawing_options(args), "scores": args.scores}
    for path in predict(Predictor(cfg), images, args.output, drawing):
        print(path)
