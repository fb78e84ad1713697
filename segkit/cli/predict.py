"""`segkit predict`: images in, overlay pictures and COCO JSON out."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config that the weights were trained by")
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint (default: MODEL.WEIGHTS)")
    parser.add_argument("--input", nargs="+", required=True, help="images, folders or patterns")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where to write")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def run(args: argparse.Namespace) -> int:
    """Predict and say what was written."""
    from segkit.engine.predictor import Predictor, find_images, predict
    from segkit.engine.setup import read_config

    images = find_images(args.input)
    cfg = read_config(args.config_file, args.opts)
    cfg.MODEL.WEIGHTS = args.weights or cfg.MODEL.WEIGHTS
    for path in predict(Predictor(cfg), images, args.output):
        print(path)
    return 0
