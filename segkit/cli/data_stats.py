"""`segkit data stats`: what a dataset holds, as a table, JSON and plots."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from segkit.cli.data_convert import add_source_arguments, source_options
from segkit.scoring import counts_file
from segkit.utils.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--format", dest="format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--output", type=Path, metavar="DIR", help="gets stats.json and stats.png")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Count, print, write; 0 where all could be read."""
    from segkit.curation.stats import count_dataset
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.dataset_stats import draw_dataset_stats, stats_tables
    from segkit.utils.files import dump_json

    if args.output is not None:
        counts_file.check_writable(args.output / "stats.json")
    source = open_reader(args.format, source_options(args))
    with progress_bar("stats") as progress:
        found = count_dataset(source, progress)
    if args.output is not None:
        with counts_file.convert_write_errors(args.output):
            dump_json(args.output / "stats.json", found)
            png.write(args.output / "stats.png", draw_dataset_stats(found, source.categories))
        print(args.output / "stats.json", args.output / "stats.png", sep="\n")
    Console().print(stats_tables(found))
    return 0
