"""`segkit data`: make, check and convert datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli import data_check, data_convert, data_stats, data_view
from segkit.cli.arguments import Command, add_commands, add_seed, add_workers, positive, run_command
from segkit.utils.progress import progress_bar

run = run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands = {
        "toy": Command("generate toy scenes in COCO panoptic format", _add_toy, _toy),
        "check": Command(
            "find everything that is wrong with a dataset, and repair a copy",
            data_check.add_arguments,
            data_check.run,
        ),
        "rules": Command("list what `segkit data check` looks for", lambda parser: None, data_check.print_rules),
        "convert": Command(
            "convert a dataset into another format, and list what that format cannot hold",
            data_convert.add_arguments,
            data_convert.run,
        ),
        "formats": Command("list the formats and their options", lambda parser: None, data_convert.print_formats),
        "stats": Command(
            "count images, segments, areas, crowds and void pixels of a dataset",
            data_stats.add_arguments,
            data_stats.run,
        ),
        "view": Command(
            "draw a dataset's ground truth over its images, in a grid", data_view.add_arguments, data_view.run
        ),
        "panoptic-stuff": Command(
            "write the semantic PNGs that Detectron2's own *_panoptic_separated datasets need",
            _add_panoptic_stuff,
            _panoptic_stuff,
        ),
    }
    add_commands(parser, commands)


def _add_toy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    images = "number of scenes (default: %(default)s)"
    parser.add_argument("--images", type=positive, default=100, metavar="N", help=images)
    add_seed(parser, 0, "the same seed gives the same bytes")
    parser.add_argument("--overwrite", action="store_true", help="replace the content of DIR")


def _toy(args: argparse.Namespace) -> None:
    from segkit.data.toy.dataset import write_dataset

    with progress_bar("toy scenes") as progress:
        write_dataset(args.output, args.images, args.seed, overwrite=args.overwrite, progress=progress)
    for name in ("images", "panoptic.json", "panoptic", "instances.json"):
        print(args.output / name)


def _add_panoptic_stuff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the panoptic JSON")
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="the folder of its PNGs")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    add_workers(parser)


def _panoptic_stuff(args: argparse.Namespace) -> None:
    from segkit.curation.panoptic_stuff import write_panoptic_stuff

    with progress_bar("panoptic-stuff") as progress:
        count = write_panoptic_stuff(args.json, args.masks, args.output, args.workers, progress)
    print(f"wrote {count} PNGs to {args.output}")
