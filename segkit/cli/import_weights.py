"""`segkit import`: weights of other packages as ours, with their classes and the config that they need."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.cli import arguments
from segkit.cli.weights import SUFFIXES
from segkit.utils.errors import ConfigError
from segkit.utils.files import dump_json
from segkit.utils.text import make_printable

if TYPE_CHECKING:
    from segkit.engine.importers.tensor_report import ImportReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    source = "weights: .pkl, .pth, .bin, .ckpt or .safetensors of another package, or an address that Detectron2 knows"
    parser.add_argument("source", metavar="SOURCE", help=source)
    output = "write the weights as .pth or .safetensors, and beside them the config that they need as .yaml"
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=output)
    kind = "kind of the source (default: recognised from names and shapes; a wrong name lists the kinds)"
    parser.add_argument("--from", dest="kind", default="", metavar="KIND", help=kind)
    arguments.add_config_file(parser, "config of the model (default: found from names and shapes)", default="")
    classes = (
        "what the classes are: name of a dataset, or JSON with `categories` (default: known for published weights)"
    )
    parser.add_argument("--classes", default="", metavar="NAME", help=classes)
    base = "weights that the source's differences belong to, which are added: DINOv3 for EoMT's models of it"
    parser.add_argument("--base", default="", metavar="FILE", help=base)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report of every tensor as JSON")
    arguments.add_plugins(parser)


def run(args: argparse.Namespace) -> None:
    """Import, and print the report and what was written."""
    if args.output.suffix not in SUFFIXES:
        raise ConfigError(f"expected a name that ends in {' or '.join(SUFFIXES)}", where=args.output)
    for path in filter(None, (args.output, args.json)):
        arguments.check_output(path, [Path(args.source), *([Path(args.base)] if args.base else [])])
    arguments.load_plugins(args)
    from segkit.engine import register

    register()
    from segkit.engine.importers import import_weights

    reports: list[ImportReport] = []  # also of weights that are then refused
    try:
        report = import_weights(
            args.source,
            args.output,
            source=args.kind,
            config_file=args.config_file,
            classes=args.classes,
            base=args.base,
            on_report=reports.append,
        )
    finally:
        for content in reports:
            print(make_printable("\n".join(content.format_lines()), keep="\n"))
            if args.json:
                dump_json(args.json, content.to_json())
    print(args.output)
    if report.config and not report.is_backbone:
        print(f"{report.config}  (segkit predict --config-file {report.config} --input ... --output ...)")
    elif report.config:
        print(f"{report.config}  (segkit train --config-file {report.config})")
