"""`segkit completion`: a script that lets a shell complete commands, options, recipes, formats and fusion methods."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from segkit.cli import completion_scripts
from segkit.cli.completion_scripts import CommandWords, Option
from segkit.cli.main import COMMANDS, PROGRAM, build_parser
from segkit.utils.config_files import list_recipes

# shell -> (writes the script, where the shell looks for it)
SHELLS = {
    "bash": (completion_scripts.write_bash, "~/.local/share/bash-completion/completions/segkit"),
    "zsh": (completion_scripts.write_zsh, "~/.zfunc/_segkit, with ~/.zfunc in fpath"),
    "fish": (completion_scripts.write_fish, "~/.config/fish/completions/segkit.fish"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    files = "\n".join(f"  segkit completion {shell} > {path}" for shell, (_, path) in SHELLS.items())
    parser.epilog = f"Write the script to where the shell looks for it, and start a shell:\n{files}"
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    write, path = SHELLS[args.shell]
    print(write([*list_command_words()], f"Completion for segkit. Put it into {path}."))


def list_command_words() -> Iterator[CommandWords]:
    """List what may follow each command, as its parser declares it.

    Yields:
        The words after `segkit`, after each command and each subcommand.
    """
    summaries = {command: summary for command, (_, summary) in COMMANDS.items()}
    yield CommandWords(PROGRAM, summaries, (Option("--help", "list the commands"), Option("--version", "the version")))
    values = _list_values()
    for command in COMMANDS:
        yield from _walk(build_parser(command), f"{PROGRAM} {command}", values)


def _walk(parser: argparse.ArgumentParser, location: str, values: Mapping[str, list[str]]) -> Iterator[CommandWords]:
    commands: dict[str, str] = {}
    options = []
    subparsers: dict[str, argparse.ArgumentParser] = {}
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            subparsers = dict(action.choices)
            commands |= {choice.dest: choice.help or "" for choice in action._choices_actions}
        elif not action.option_strings:
            commands |= dict.fromkeys(action.choices or (), "")
        else:
            help = " ".join(formatter._expand_help(action).split()) if action.help else ""
            name = next(text for text in action.option_strings if text.startswith("--"))
            words = tuple(action.choices or values.get(action.dest) or ())
            is_config = action.dest == "config_file"
            options.append(Option(name, help, action.nargs != 0, words, is_config, action.nargs == "+"))
    yield CommandWords(location, commands, tuple(options))
    for name, subparser in subparsers.items():
        yield from _walk(subparser, f"{location} {name}", values)


def _list_values() -> dict[str, list[str]]:
    """Name of an argument -> its values, if the parser does not list them."""
    from segkit.formats.registry import READERS, WRITERS
    from segkit.fusion import FUSION_METHODS

    recipes, methods = [*list_recipes()], sorted(FUSION_METHODS)
    values = {"config_file": recipes, "copy": recipes, "method": methods, "methods": methods}
    return {**values, "format": sorted(READERS), "to": sorted(WRITERS)}
