"""`segkit configs`: the recipes, a line each, and copies of them that can be edited."""

from __future__ import annotations

import argparse
from pathlib import Path

from segkit.utils.config_files import copy_recipe, list_recipes
from segkit.utils.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--copy", metavar="NAME", help="write a copy of this recipe, to edit it")
    output = "where to write the copy: a file or a folder (default: the recipe's name in this folder)"
    parser.add_argument("--output", type=Path, default=Path(), metavar="PATH", help=output)


def run(args: argparse.Namespace) -> None:
    """Print the recipes, or the path of the copy."""
    if args.copy:
        print(_copy(args.copy, args.output))
        return
    recipes = list_recipes()
    width = max(map(len, recipes))
    for name, summary in recipes.items():
        print(f"{name:<{width}}  {summary}")


def _copy(name: str, output: Path) -> Path:
    path = output / f"{Path(name).stem}.yaml" if output.is_dir() else output
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError("expected a name that ends in .yaml", where=f"--output {path}")
    if path.exists():
        raise ConfigError("the file exists already", where=path, remedy="name another one with --output")
    copy_recipe(name, path)
    return path
