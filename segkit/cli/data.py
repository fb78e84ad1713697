"""`segkit data`: make and convert data."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import data_check, data_convert, data_stats, data_view
from segkit.utils.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their arguments."""
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="VERB")
    toy = verbs.add_parser("toy", help="generate toy scenes in COCO panoptic layout")
    toy.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    toy.add_argument("--images", type=_positive, default=100, metavar="N", help="number of scenes (default 100)")
    toy.add_argument("--seed", type=_seed, default=0, metavar="S", help="the same seed, the same bytes (default 0)")
    toy.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    toy.set_defaults(data_run=_toy)
    for name, does, module in (
        ("check", "find everything that is wrong with a dataset, and repair a copy", data_check),
        ("convert", "from one format into another, telling what that cannot hold", data_convert),
        ("stats", "count images, segments, areas, crowds and void of a dataset", data_stats),
        ("view", "draw a dataset's truth over its images, in a grid", data_view),
    ):
        one = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
        module.add_arguments(one)
        one.set_defaults(data_run=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    result: int = args.data_run(args)
    return result


def _toy(args: argparse.Namespace) -> int:
    from segkit.data.toy.dataset import write_dataset

    with progress_bar("toy scenes") as progress:
        write_dataset(args.output, args.images, args.seed, overwrite=args.overwrite, progress=progress)
    for name in ("images", "panoptic.json", "panoptic", "instances.json"):
        print(args.output / name)
    return 0


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)
