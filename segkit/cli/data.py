"""`segkit data`: make, check and convert datasets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from segkit.cli import arguments, data_check, data_view
from segkit.utils import files
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError
from segkit.utils.links import refusing_outer_links
from segkit.utils.progress import progress_bar

STATS_FILES = ("stats.json", "stats.png")

run = arguments.run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands: dict[str, arguments.Command] = {
        "toy": ("generate toy scenes in COCO panoptic format", _add_toy, _toy),
        "check": (data_check.SUMMARY, data_check.add_arguments, data_check.run),
        "rules": ("list what `segkit data check` looks for", None, data_check.print_rules),
        "convert": (
            "convert a dataset or predictions to another format; list what that cannot hold",
            _add_convert,
            _convert,
        ),
        "formats": ("list the formats and their options", None, _print_formats),
        "stats": ("count images, segments, areas, crowds and void pixels of a dataset", _add_stats, _stats),
        "view": (data_view.SUMMARY, data_view.add_arguments, data_view.run),
        "panoptic-stuff": (
            "write the semantic PNGs that Detectron2's own *_panoptic_separated datasets need",
            _add_panoptic_stuff,
            _panoptic_stuff,
        ),
    }
    arguments.add_commands(parser, commands)


def _add_toy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    arguments.add_number(parser, "--images", 100, "number of scenes")
    arguments.add_number(parser, "--seed", 0, "the same seed gives the same bytes", minimum=0)
    parser.add_argument("--overwrite", action="store_true", help="replace the content of DIR")


def _toy(args: argparse.Namespace) -> None:
    from segkit.data.toy.dataset import write_dataset

    with progress_bar("toy scenes") as progress:
        write_dataset(args.output, args.images, args.seed, overwrite=args.overwrite, progress=progress)
    for name in ("images", "panoptic.json", "panoptic", "instances.json"):
        print(args.output / name)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    arguments.add_dataset_arguments(parser, "--from")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="to write")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    arguments.add_assignments(parser, "--to-set", "options of the format to write")
    parser.add_argument("--skip-images", action="store_true", help="do not copy the images")
    follow = "copy what links in the dataset lead to outside of it too; only if you trust it"
    parser.add_argument("--follow-links", action="store_true", help=follow)


def _convert(args: argparse.Namespace) -> int:
    """Convert, print what the format cannot hold; 1 if images were left out."""
    from segkit.curation.convert import convert, list_lost_extras, summarize_losses
    from segkit.curation.issues import IssueList
    from segkit.formats.registry import add_prediction_options, check_writer, open_reader, open_writer

    check_writer(args.to)
    given = arguments.get_dataset_options(args)  # first: it finds the format
    options = add_prediction_options(args.format, given, args.to)
    for name in ("root", "masks", "images"):
        if name in options and arguments.is_within(args.output, options[name]):
            raise ConfigError(f"--output {args.output} is within --{name}", remedy="name a folder outside the dataset")
    files.check_output_folder(args.output, must_be_empty=True)
    issues = IssueList()
    guard: AbstractContextManager[None] = nullcontext()
    if not args.follow_links:
        remedy = "replace the link by the file, or say --follow-links if you trust the dataset"
        guard = refusing_outer_links(arguments.list_named_paths(options), remedy)
    with guard, files.new_folder(args.output) as folder, progress_bar("convert") as progress:
        reader = open_reader(args.format, options)
        writer = open_writer(args.to, folder, reader.categories, arguments.parse_assignments(args.to_set))
        losses = convert(reader, writer, not args.skip_images, progress, issues.add_error)
    print(args.output)
    if reader.skipped:
        print(f"not read from {args.format}:", *reader.skipped, sep="\n  ")
    if issues:
        print(f"read from {args.format}, but to be checked:")
        data_check.print_issues(issues)
    left_out = [loss for loss in losses if loss.is_left_out]
    lost = [loss for loss in losses if not loss.is_left_out]
    if lines := [*list_lost_extras(reader, writer), *summarize_losses(lost)]:
        print(f"{args.to} cannot hold:", *lines, sep="\n  ")
    if left_out:
        title = f"{len(left_out)} of {len(reader.images)} images are left out, {args.to} cannot hold them:"
        print(title, *summarize_losses(left_out), sep="\n  ")
    return int(bool(left_out))


def _print_formats(args: argparse.Namespace) -> None:
    """Options in brackets have the shown default."""
    from segkit.formats.registry import READERS, REQUIRED, WRITER_ARGUMENTS, WRITERS, get_options

    def describe(options: Mapping[str, Any]) -> str:
        return " ".join(name if default is REQUIRED else f"[{name}={default}]" for name, default in options.items())

    for name in sorted({*READERS, *WRITERS}):
        print(name)
        if name in READERS:
            print(f"  read: {describe(get_options(READERS[name]))}")
        if name in WRITERS:
            print(f"  written: {describe(get_options(WRITERS[name], WRITER_ARGUMENTS))}".rstrip())


def _add_stats(parser: argparse.ArgumentParser) -> None:
    arguments.add_dataset_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"folder for {' and '.join(STATS_FILES)}")


def _stats(args: argparse.Namespace) -> None:
    from segkit.curation.stats import count_dataset
    from segkit.formats import png
    from segkit.formats.registry import open_reader
    from segkit.report.dataset_stats import draw_dataset_stats, stats_tables

    paths = [args.output / name for name in STATS_FILES] if args.output is not None else []
    for path in paths:
        files.check_writable(path)
    options = arguments.get_dataset_options(args)
    reader = open_reader(args.format, options)
    with progress_bar("stats") as progress:
        stats = count_dataset(reader, progress)
    if paths:
        with files.convert_write_errors(args.output):
            files.dump_json(paths[0], stats)
            png.write(paths[1], draw_dataset_stats(stats, reader.categories))
        print(*paths, sep="\n")
    open_console().print(stats_tables(stats))


def _add_panoptic_stuff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the panoptic JSON")
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="the folder of its PNGs")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    arguments.add_workers(parser)


def _panoptic_stuff(args: argparse.Namespace) -> None:
    from segkit.curation.convert import write_panoptic_stuff

    files.check_output_folder(args.output)
    with progress_bar("panoptic-stuff") as progress:
        count = write_panoptic_stuff(args.json, args.masks, args.output, args.workers, progress)
    print(f"wrote {count} PNGs to {args.output}")
