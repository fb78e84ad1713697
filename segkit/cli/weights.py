"""`segkit weights`: what a weight file holds, and its weights in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import arguments
from segkit.utils.errors import ConfigError

SUFFIXES = (".safetensors", ".pth")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    source = "weights: .pth, .safetensors, Detectron2's .pkl, pycls' .pyth, or an address that Detectron2 knows"
    parser.add_argument("input", metavar="IN", help=source)
    output = "write the weights and their classes, without optimizer and schedule, as .safetensors or .pth"
    parser.add_argument("output", metavar="OUT", nargs="?", type=Path, help=output)


def run(args: argparse.Namespace) -> None:
    """Print what the file holds, and the path that was written."""
    if args.output and args.output.suffix not in SUFFIXES:
        raise ConfigError(f"expected a name that ends in {' or '.join(SUFFIXES)}", where=args.output)
    if args.output:
        arguments.check_output(args.output, [Path(args.input)])
    from segkit.engine.checkpoints.checkpointer import require_weights
    from segkit.engine.checkpoints.weight_files import describe_weights, read_weight_file, write_weight_file

    checkpoint = read_weight_file(require_weights(args.input))
    print("\n".join(describe_weights(checkpoint, args.input)))
    if args.output:
        write_weight_file(args.output, checkpoint)
        print(args.output)
