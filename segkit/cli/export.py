"""`segkit export`: a trained model as an ONNX file, a program of torch.export, or a bundle."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from segkit.cli import arguments
from segkit.structures.graph_outputs import OUTPUTS
from segkit.utils.bundles import SUFFIX
from segkit.utils.errors import ConfigError

ONNX, PROGRAM = ".onnx", ".pt2"  # suffixes; the second is torch's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    commands: dict[str, arguments.Command] = {
        "onnx": (
            "write one ONNX graph with fusion inside, and compare it with the model",
            partial(_add_graph, suffix=ONNX),
            _export_onnx,
        ),
        "torch": (
            "write a program of torch.export, and compare it with the model",
            partial(_add_graph, suffix=PROGRAM),
            _export_torch,
        ),
        "bundle": ("write config, weights, classes and preprocessing as one file", _add_bundle, _export_bundle),
    }
    arguments.add_commands(parser, commands)


def run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    return arguments.run_command(args)


def _add_model(parser: argparse.ArgumentParser, suffix: str) -> None:
    model = "weights, the folder of a run, the config of a run, or a bundle"
    parser.add_argument("model", metavar="MODEL", help=model)
    arguments.add_config_file(parser, "config that the weights were trained with (default: beside them)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=f"file to write, *{suffix}")
    arguments.add_plugins(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs, last")


def _add_graph(parser: argparse.ArgumentParser, suffix: str) -> None:
    parser.add_argument(
        "--tasks", nargs="+", choices=[*OUTPUTS], help="what the graph gives (default: all of the model)"
    )
    size = "height and width of all images, for runtimes that need it (default: any)"
    parser.add_argument("--fixed-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help=size)
    check = "compare the results on these images (default: on generated ones of two sizes)"
    parser.add_argument("--check", nargs="+", default=[], metavar="IMAGE", help=check)
    parser.add_argument("--no-check", action="store_true", help="do not compare")
    _add_model(parser, suffix)


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    _add_model(parser, SUFFIX)


def _check_arguments(args: argparse.Namespace, suffix: str) -> None:
    if args.output.suffix != suffix:
        raise ConfigError(f"expected a name that ends in {suffix}", where=args.output)
    arguments.check_output(args.output, [Path(args.model)])
    arguments.load_plugins(args)


def _load_source(args: argparse.Namespace, suffix: str, fixed_size: tuple[int, int] | None) -> Any:
    _check_arguments(args, suffix)
    from segkit.engine.export.check import read_batches
    from segkit.engine.export.source import load_source

    source = load_source(args.model, args.config_file, args.opts)
    for _ in read_batches(source, [] if args.no_check else args.check, fixed_size):
        pass  # an image that cannot be compared is an error before the minutes of the export
    return source


def _export_bundle(args: argparse.Namespace) -> int:
    _check_arguments(args, SUFFIX)
    from segkit.engine.export.bundle import export_bundle

    export_bundle(args.model, args.output, args.config_file, args.opts)
    print(args.output)
    return 0


def _get_fixed_size(args: argparse.Namespace) -> tuple[int, int] | None:
    fixed_size = None if args.fixed_size is None else (args.fixed_size[0], args.fixed_size[1])
    if fixed_size and min(fixed_size) < 1:
        raise ConfigError(f"expected a height and a width in pixels, got {fixed_size}", where="--fixed-size")
    return fixed_size


def _export_torch(args: argparse.Namespace) -> int:
    fixed_size = _get_fixed_size(args)
    source = _load_source(args, PROGRAM, fixed_size)
    from segkit.engine.export.torch_file import export_torch, load_torch_program

    graph = export_torch(source, args.output, tasks=args.tasks, fixed_size=fixed_size)
    print(args.output)
    return 0 if args.no_check else _print_checks(source, graph, load_torch_program(args.output), args.check, fixed_size)


def _export_onnx(args: argparse.Namespace) -> int:
    fixed_size = _get_fixed_size(args)
    from segkit.engine.export.onnx_file import export_onnx, require_packages

    require_packages()
    source = _load_source(args, ONNX, fixed_size)
    graph = export_onnx(source, args.output, tasks=args.tasks, fixed_size=fixed_size)
    print(args.output)
    from segkit.engine.export.operators_on_cpu import describe_operators
    from segkit.runtime.onnx_graph import OnnxGraph

    print("\n".join(describe_operators(args.output)))
    return 0 if args.no_check else _print_checks(source, graph, OnnxGraph(args.output).run, args.check, fixed_size)


def _print_checks(source: Any, graph: Any, run: Any, images: list[str], fixed_size: tuple[int, int] | None) -> int:
    """Print each comparison; 1 if a result differs by more than rounding."""
    from segkit.engine.export.check import check_graph

    failed = 0
    for check in check_graph(source, graph, run, images, fixed_size):
        print(check.title, *check.lines, sep="\n  ")
        failed += not check.passed
    print(f"{failed} images differ by more than rounding" if failed else "equal to the model, but for rounding")
    return 1 if failed else 0
