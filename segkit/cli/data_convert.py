"""`segkit data convert`: a dataset from one layout into another."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segkit.cli.scoring_arguments import progress_bar
from segkit.structures import ConfigError, DatasetError

PLACES = ("root", "json", "masks", "images", "split", "categories", "dataset")  # what most formats take


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a dataset lies, whatever its format."""
    for name in PLACES:
        parser.add_argument(f"--{name}", metavar="NAME" if name == "split" else "PATH", help=argparse.SUPPRESS)
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="option=value", help="other options of the format"
    )


def source_options(args: argparse.Namespace) -> Mapping[str, Any]:
    """What was said of where the dataset lies."""
    options = {name: getattr(args, name) for name in PLACES if getattr(args, name) is not None}
    return {**options, **_settings(args.set)}


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"expected option=value, got {text!r}")
        options[name] = yaml.safe_load(value)
    return options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--from", dest="layout", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="to write")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    parser.add_argument(
        "--to-set", nargs="+", action="extend", default=[], metavar="option=value", help="of the format to write"
    )
    parser.add_argument("--pictures", choices=("copy", "skip"), default="copy", help="the images too (default), or not")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what the other format cannot hold; 0 where all was written."""
    from segkit.curation.convert import convert, summary
    from segkit.formats.registry import open_source, open_writer

    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise DatasetError("expected an empty or new folder", where=args.output, remedy="name another --output")
    source = open_source(args.layout, source_options(args))
    writer = open_writer(args.to, args.output, source.categories, _settings(args.to_set))
    with progress_bar("convert") as progress:
        losses = convert(source, writer, args.pictures == "copy", progress)
    print(args.output)
    if source.skipped:
        print(f"not read of {args.layout}:", *source.skipped, sep="\n  ")
    if losses:
        print(f"{args.to} cannot hold:", *summary(losses), sep="\n  ")
    return 0
