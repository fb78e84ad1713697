"""Arguments that several commands share: subcommands, types, datasets, the rules of panoptic quality, workers."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from segkit.utils import files, plugins
from segkit.utils.errors import ConfigError
from segkit.utils.issues import DEFAULT_LIMIT
from segkit.utils.plugins import ENVIRONMENT
from segkit.utils.process_pool import count_cpus
from segkit.utils.text import suggest
from segkit.utils.yaml_text import parse_yaml

MAX_DEFAULT_WORKERS = 8  # more processes rarely read files faster
AUTO = "auto"  # the format that is to be found
USAGE_ERROR = 2  # argparse's exit code
AddArguments: TypeAlias = Callable[[argparse.ArgumentParser], None]
Command: TypeAlias = tuple[str, AddArguments | None, Callable[[argparse.Namespace], int | None]]
DATASET_OPTIONS = {  # the options of most formats
    "root": "folder of the dataset",
    "json": "JSON of the annotations",
    "masks": "folder of the PNGs of a panoptic JSON",
    "images": "folder of the images",
    "split": "part of the dataset",
    "categories": "JSON of the categories of 2-channel PNGs",
    "dataset": "JSON of the images and categories that predictions belong to",
}


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors ask whether a known option or value was meant; subcommands' parsers are of its class."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Report unknown options here, where the known ones are, and not in the parser above."""
        self._given = [str(text) for text in args or ()]
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, with the most similar option or choice, and exit."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if choice:
            hints = [suggest(choice[1], re.findall(r"[^\s',]+", choice[2]))]
        else:
            options = [text.partition("=")[0] for text in getattr(self, "_given", ()) if text.startswith("--")]
            known = self._option_string_actions
            hints = [f"{suggest(option, known)[:-1]} for {option}?" for option in options if option not in known]
        hints = [hint for hint in hints if hint.startswith("did")]
        super().error("; ".join([message, " ".join(hints)]) if hints else message)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Keep the exit code if the stream is closed: argparse does so since Python 3.11."""
        with suppress(OSError):
            super()._print_message(message, file)


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, Command]) -> None:
    """Declare subcommands; `run_command` runs the chosen one.

    Args:
        parser: the parser of the command.
        commands: name -> (summary, a line for the help; what declares its arguments; what runs it and returns the exit
            code, None for 0). A command without arguments has None in the second place.
    """
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_arguments, run) in commands.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        subparser = subparsers.add_parser(name, help=summary, description=description, allow_abbrev=False)
        if add_arguments is not None:
            add_arguments(subparser)
        subparser.set_defaults(run_command=run)


def run_command(args: argparse.Namespace) -> int:
    """Run the chosen subcommand and return its exit code."""
    return int(args.run_command(args) or 0)


def add_panoptic_rules(parser: argparse.ArgumentParser) -> None:
    """Declare how panoptic files are read and counted; `get_panoptic_rules` reads the values."""
    modes = "reference: panopticapi's rules to the bit (default); corrected: count all crowds and recount areas"
    parser.add_argument("--mode", choices=("reference", "corrected"), default="reference", help=modes)
    areas = parser.add_mutually_exclusive_group()
    for value, help in {
        "recount": "count the ground truth's areas in its PNGs instead of refusing a JSON that contradicts them",
        "trust": "take the ground truth's areas from its JSON without a check, as panopticapi does",
    }.items():
        areas.add_argument(f"--{value}-areas", dest="areas", action="store_const", const=value, help=help)
    parser.add_argument("--allow-missing", action="store_true", help="count images without prediction as all missed")
    parser.add_argument("--allow-extra", action="store_true", help="ignore predictions of other images")


def get_panoptic_rules(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_panoptic_rules` as keyword arguments of `score_panoptic`."""
    return {name: getattr(args, name) for name in ("mode", "areas", "allow_missing", "allow_extra")}


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers` and `--problems`; `show_progress` reads the values."""
    add_workers(parser)
    problems = "stop after so many problems with the files, and report them together"
    add_number(parser, "--problems", DEFAULT_LIMIT, problems)


@contextmanager
def show_progress(title: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Show a progress bar while the block runs.

    Args:
        title: text before the bar.
        args: with the values of `add_work_options`.

    Yields:
        The bar and these values as keyword arguments of the scoring functions: workers, limit, progress.
    """
    from segkit.utils.progress import progress_bar  # needs rich: `segkit doctor` must not

    with progress_bar(title) as progress:
        yield {"workers": args.workers, "limit": args.problems, "progress": progress}


def add_config_file(parser: argparse.ArgumentParser, help: str, **options: Any) -> None:
    """Declare `--config-file`.

    Args:
        parser: the parser of the command.
        help: what the config is for.
        options: of `add_argument`: required, default.
    """
    parser.add_argument(
        "--config-file", metavar="FILE", help=f"{help}: a YAML file, or the name of a recipe", **options
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Declare `--weights`; without it, `read_config` finds the weights."""
    help = "checkpoint (default: the last one beside the config.yaml of a run, otherwise MODEL.WEIGHTS)"
    parser.add_argument("--weights", default="", metavar="FILE", help=help)


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Declare `--plugin`, of every command that reads a config; `load_plugins` imports the plugins."""
    help = f"import your module or .py file first (may be repeated; also: the variable {ENVIRONMENT})"
    parser.add_argument("--plugin", action="append", dest="plugins", default=[], metavar="MODULE", help=help)


def load_plugins(args: argparse.Namespace) -> None:
    """Import the plugins of SEGKIT_PLUGINS and `--plugin`."""
    plugins.load_plugins([*plugins.get_environment_plugins(), *args.plugins])


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers`: by default one process per CPU, but not more than `MAX_DEFAULT_WORKERS`."""
    add_number(parser, "--workers", min(count_cpus(), MAX_DEFAULT_WORKERS), "processes")


def add_dataset_arguments(parser: argparse.ArgumentParser, format_option: str = "--format") -> None:
    """Declare the format of a dataset, and where it is; `get_dataset_options` reads the values except `format`."""
    help = "of the dataset; auto finds it, from --root or --json"
    parser.add_argument(format_option, dest="format", required=True, metavar="FORMAT", help=help)
    for name, help in DATASET_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar="NAME" if name == "split" else "PATH", help=help)
    add_assignments(parser, "--set", "other options of the format; `segkit data formats` lists them")


def get_dataset_options(args: argparse.Namespace) -> Mapping[str, Any]:
    """The values of `add_dataset_arguments` as options of `open_reader`; also finds the format `auto`."""
    given = {name: getattr(args, name) for name in DATASET_OPTIONS if getattr(args, name) is not None}
    options = {**given, **parse_assignments(args.set)}
    if args.format != AUTO:
        return options
    from segkit.formats.detection import detect_format

    detection = detect_format(options)
    args.format = detection.format_name
    print(f"format: {detection.format_name} ({detection.evidence})")
    return detection.options


def list_named_paths(options: Mapping[str, Any]) -> list[Path]:
    """The paths among the options of a dataset, as the user named them."""
    keys = [*(key for key in DATASET_OPTIONS if key != "split"), "path"]
    return [Path(options[key]) for key in keys if isinstance(options.get(key), (str, Path))]


def add_assignments(parser: argparse.ArgumentParser, option: str, help: str, metavar: str = "option=value") -> None:
    """Declare an option that takes assignments, and may be repeated; `parse_assignments` reads them."""
    parser.add_argument(option, nargs="+", action="extend", default=[], metavar=metavar, help=help)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Parse option=value texts, values as YAML."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"expected option=value, got {text!r}")
        try:
            options[name] = parse_yaml(value)
        except ConfigError:
            raise ConfigError(f"expected the value in YAML, got {text!r}") from None
    return options


def is_within(path: Path, folder: object) -> bool:
    """Whether the path, after following links, is the folder or inside of it."""
    return "\0" not in str(folder) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(str(folder)))


def check_output(path: Path, inputs: Iterable[Path | None]) -> None:
    """Check before the work that a file can be written, and is not one of the inputs."""
    if any(each is not None and os.path.realpath(each) == os.path.realpath(path) for each in inputs):
        raise ConfigError("the output would overwrite an input", where=path, remedy="name another file")
    files.check_writable(path)


def add_number(parser: argparse.ArgumentParser, option: str, default: int, help: str, minimum: int = 1) -> None:
    """Declare an option with a whole number from `minimum`."""
    number = partial(parse_number, minimum=minimum)
    parser.add_argument(option, type=number, default=default, metavar="N", help=f"{help} (default: %(default)s)")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """Declare how overlays are drawn; `get_drawing_options` reads the values."""
    weight = "weight of the colours in overlays, from 0, outlines alone, to 1 (default: %(default)s)"
    parser.add_argument("--alpha", type=parse_share, default=0.55, metavar="SHARE", help=weight)
    parser.add_argument("--no-names", dest="names", action="store_false", help="write no class names into overlays")


def get_drawing_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_drawing_options` as keyword arguments of the functions that draw."""
    return {"alpha": args.alpha, "names": args.names}


def parse_share(text: str) -> float:
    """Parse a number from 0 to 1, as a type of argparse."""
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return share


def parse_number(text: str, minimum: int = 1) -> int:
    """Parse a whole number from `minimum`, as a type of argparse."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"expected a whole number from {minimum}, got {text!r}")
    return int(text)
