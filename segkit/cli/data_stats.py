"""`segkit data stats`: statistics of a dataset as a table, JSON and plots."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.cli.data_convert import add_dataset_arguments, get_dataset_options
from segkit.utils.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for stats.json and stats.png")
    add_dataset_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Count, write and print."""
    from rich.console import Console

    from segkit.curation.stats import count_dataset
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.dataset_stats import draw_dataset_stats, stats_tables
    from segkit.scoring import counts_file
    from segkit.utils.files import dump_json

    if args.output is not None:
        counts_file.check_writable(args.output / "stats.json")
    reader = open_reader(args.format, get_dataset_options(args))
    with progress_bar("stats") as progress:
        stats = count_dataset(reader, progress)
    if args.output is not None:
        with counts_file.convert_write_errors(args.output):
            dump_json(args.output / "stats.json", stats)
            png.write(args.output / "stats.png", draw_dataset_stats(stats, reader.categories))
        print(args.output / "stats.json", args.output / "stats.png", sep="\n")
    Console().print(stats_tables(stats))
