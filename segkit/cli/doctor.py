"""`segkit doctor`: a table of what is installed and what works, and the commands that repair the rest."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from typing import Any

from segkit.engine import detectron2_installer
from segkit.engine.environment import Check, check_environment, describe_machine, get_python_command
from segkit.utils.errors import ConfigError

COLORS = {"ok": "green", "missing": "red", "broken": "red", "too old": "yellow", "too new": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    train = "torch and Detectron2 are needed (default: only if one of them is installed)"
    parser.add_argument("--train", action="store_true", help=train)
    parser.add_argument("--dev", action="store_true", help="also check what tests and benchmarks need")
    install = "install Detectron2 without a compiler, instead of the checks; a Detectron2 that works is left alone"
    parser.add_argument("--install-detectron2", action="store_true", help=install)
    detectron2_installer.add_arguments(parser.add_argument_group("options of --install-detectron2"))


def run(args: argparse.Namespace) -> int:
    """Print the checks; 0 if everything that segkit needs is installed and works, otherwise 1."""
    if args.install_detectron2:
        detectron2_installer.install(args)
        return 0
    if args.wheel_dir or args.force or args.source != "pypi":
        raise ConfigError("--source, --force and --wheel-dir are options of --install-detectron2", remedy="add it")
    checks, machine = check_environment(args.train, args.dev), describe_machine()
    fails = any(check.fails for check in checks)
    if args.json:
        print(json.dumps({"ok": not fails, "checks": [asdict(check) for check in checks], "machine": machine}))
        return int(fails)
    _print_table(checks)
    _print_machine(machine)
    _print_fixes("Needed:", [check for check in checks if check.fails])
    _print_fixes("Optional:", [check for check in checks if check.status != "ok" and not check.needed])
    print("Needed packages are missing or broken: see the commands above." if fails else "All needed packages work.")
    return int(fails)


def _print_table(checks: list[Check]) -> None:
    try:
        from rich import box
        from rich.table import Column, Table
        from rich.text import Text

        from segkit.utils.console import open_console
    except ImportError:  # rich itself may be missing
        for check in checks:
            print(f"{check.name:<24} {check.version:<20} {_format_status(check):<18} {check.note}")
        return
    columns = [Column(title, no_wrap=True) for title in ("package", "version", "status")]
    table = Table(*columns, Column(overflow="fold"), box=box.SIMPLE_HEAD)
    for check in checks:
        color = COLORS[check.status] if check.needed else "dim"
        table.add_row(check.name, check.version, Text(_format_status(check), style=color), Text(check.note))
    open_console().print(table, highlight=False)


def _format_status(check: Check) -> str:
    """The status, in brackets if segkit works without the package."""
    return check.status if check.needed or check.status == "ok" else f"({check.status})"


def _print_machine(machine: dict[str, Any]) -> None:
    names = [name for name in ("coco", "cityscapes") if machine[name]]
    content = f"holds {' and '.join(names)}" if names else "holds neither coco nor cityscapes"
    state = content if machine["datasets_exists"] else "does not exist"
    print(f"DETECTRON2_DATASETS: {machine['datasets']} {state}; {machine['free_gb']} GB free. CPUs: {machine['cpus']}")


def _print_fixes(title: str, checks: list[Check]) -> None:
    """The commands; plain installations are joined into one command."""
    commands = list(dict.fromkeys(check.fix for check in checks if check.fix))
    install = f'{get_python_command()} -m pip install "'
    requirements = [command.removeprefix(install) for command in commands if command.startswith(install)]
    # A package that another one lacks has no range; it may be a requirement of segkit too.
    ranged = {re.split("[<>=]", requirement)[0] for requirement in requirements if not requirement[:-1].isidentifier()}
    requirements = [requirement for requirement in requirements if requirement[:-1] not in ranged]
    lines = [install + ' "'.join(requirements)] if requirements else []
    lines += [command for command in commands if not command.startswith(install)]
    if lines:
        print("\n".join([title, *(f"    {line}" for line in lines)]))
