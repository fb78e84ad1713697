"""`segkit data convert`: a dataset from one format into another. Also the arguments that name any dataset."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.utils.errors import ConfigError
from segkit.utils.progress import progress_bar

DATASET_OPTIONS = {  # the options of most formats
    "root": "folder of the dataset",
    "json": "JSON of the annotations",
    "masks": "folder of the PNGs of a panoptic JSON",
    "images": "folder of the images",
    "split": "part of the dataset",
    "categories": "JSON of the categories of 2-channel PNGs",
    "dataset": "JSON of the images and categories that predictions belong to",
}


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a dataset of any format is; `get_dataset_options` reads the values."""
    for name, help in DATASET_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar="NAME" if name == "split" else "PATH", help=help)
    others = "other options of the format; `segkit data formats` lists them"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="option=value", help=others)


def get_dataset_options(args: argparse.Namespace) -> Mapping[str, Any]:
    """The values of `add_dataset_arguments` as options of `open_reader`."""
    options = {name: getattr(args, name) for name in DATASET_OPTIONS if getattr(args, name) is not None}
    return {**options, **_parse_assignments(args.set)}


def is_within(path: Path, folder: object) -> bool:
    """Whether the path, after following links, is the folder or inside of it."""
    return "\0" not in str(folder) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(str(folder)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--from", dest="format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="to write")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    written = "options of the format to write"
    parser.add_argument("--to-set", nargs="+", action="extend", default=[], metavar="option=value", help=written)
    parser.add_argument("--skip-images", action="store_true", help="do not copy the images")
    add_dataset_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, and list what the other format cannot hold."""
    from segkit.curation.convert import convert, list_lost_extras, summarize_losses
    from segkit.formats.registry import open_reader, open_writer
    from segkit.utils.files import new_folder

    options = get_dataset_options(args)
    for name in ("root", "masks", "images"):
        if name in options and is_within(args.output, options[name]):
            raise ConfigError(f"--output {args.output} is within --{name}", remedy="name a folder outside the dataset")
    reader = open_reader(args.format, options)
    with new_folder(args.output) as folder, progress_bar("convert") as progress:
        writer = open_writer(args.to, folder, reader.categories, _parse_assignments(args.to_set))
        losses = convert(reader, writer, not args.skip_images, progress)
    print(args.output)
    if reader.skipped:
        print(f"not read from {args.format}:", *reader.skipped, sep="\n  ")
    if lines := [*list_lost_extras(reader, writer), *summarize_losses(losses)]:
        print(f"{args.to} cannot hold:", *lines, sep="\n  ")


def print_formats(args: argparse.Namespace) -> None:
    """Print the formats and their options for reading and writing; options in brackets have the shown default."""
    from segkit.formats.registry import READERS, REQUIRED, WRITER_ARGUMENTS, WRITERS, get_options

    def describe(options: Mapping[str, Any]) -> str:
        return " ".join(name if default is REQUIRED else f"[{name}={default}]" for name, default in options.items())

    for name in sorted({*READERS, *WRITERS}):
        print(name)
        if name in READERS:
            print(f"  read: {describe(get_options(READERS[name]))}")
        if name in WRITERS:
            print(f"  written: {describe(get_options(WRITERS[name], WRITER_ARGUMENTS))}".rstrip())


def _parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """option=value texts, values as YAML."""
    import yaml

    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"expected option=value, got {text!r}")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"expected the value in YAML, got {text!r}") from None
    return options
