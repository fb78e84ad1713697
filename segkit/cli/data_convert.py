"""`segkit data convert`: a dataset from one layout into another."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segkit.utils.errors import ConfigError
from segkit.utils.progress import progress_bar

PLACES = {  # what most formats take
    "root": "folder of the dataset",
    "json": "JSON of the annotations",
    "masks": "folder of the PNGs of a panoptic JSON",
    "images": "folder of the images",
    "split": "part of the dataset",
    "categories": "JSON of the categories of 2-channel PNGs",
    "dataset": "JSON of images and categories that predictions are of",
}


class _ListFormats(argparse.Action):
    """Print the formats and their options, and stop, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        from segkit.formats.registry import READERS, REQUIRED, WRITER_ARGUMENTS, WRITERS, get_options

        def shown(options: Mapping[str, Any]) -> str:
            return " ".join(key if value is REQUIRED else f"[{key}={value}]" for key, value in options.items())

        for name in sorted({*READERS, *WRITERS}):
            print(name)
            if name in READERS:
                print(f"  read: {shown(get_options(READERS[name]))}")
            if name in WRITERS:
                print(f"  written: {shown(get_options(WRITERS[name], WRITER_ARGUMENTS))}".rstrip())
        parser.exit()


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a dataset lies, whatever its format."""
    for name, what in PLACES.items():
        parser.add_argument(f"--{name}", metavar="NAME" if name == "split" else "PATH", help=what)
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="option=value", help="other options of the format"
    )
    parser.add_argument("--formats", nargs=0, action=_ListFormats, help="list the formats and their options, and stop")


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
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"expected a value as YAML writes it, got {text!r}") from None
    return options


def is_within(path: Path, folder: object) -> bool:
    """Whether the path, links followed, is the folder or lies in it."""
    return "\0" not in str(folder) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(str(folder)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--from", dest="format", required=True, metavar="FORMAT", help="of the dataset")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="to write")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="an empty or new folder")
    parser.add_argument(
        "--to-set", nargs="+", action="extend", default=[], metavar="option=value", help="of the format to write"
    )
    parser.add_argument(
        "--image-files", choices=("copy", "skip"), default="copy", help="the images too (default), or not"
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what the other format cannot hold; 0 where all was written."""
    from segkit.curation.convert import convert, list_lost_extras, summarize_losses
    from segkit.formats.registry import open_reader, open_writer
    from segkit.utils.files import new_folder

    options = source_options(args)
    for name in ("root", "masks", "images"):
        if name in options and is_within(args.output, options[name]):
            raise ConfigError(f"--output {args.output} is within --{name}", remedy="name a folder outside the dataset")
    source = open_reader(args.format, options)
    with new_folder(args.output) as folder, progress_bar("convert") as progress:
        writer = open_writer(args.to, folder, source.categories, _settings(args.to_set))
        losses = convert(source, writer, args.image_files == "copy", progress)
    print(args.output)
    if source.skipped:
        print(f"not read of {args.format}:", *source.skipped, sep="\n  ")
    if lines := [*list_lost_extras(source, writer), *summarize_losses(losses)]:
        print(f"{args.to} cannot hold:", *lines, sep="\n  ")
    return 0
