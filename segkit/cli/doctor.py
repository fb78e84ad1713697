"""`segkit doctor`: a table of what is installed, what works without what is not, and the commands that mend it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from segkit.engine.environment import Check, inspect, machine, python

COLORS = {"ok": "green", "missing": "red", "broken": "red", "too old": "yellow", "too new": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 where all that segkit needs is there, else 1."""
    checks, computer = inspect(), machine()
    fails = any(check.fails for check in checks)
    if args.json:
        print(json.dumps({"ok": not fails, "checks": [asdict(check) for check in checks], "machine": computer}))
    else:
        _print_table(checks)
        _print_machine(computer)
        _print_fixes("Needed:", [check for check in checks if check.fails])
        _print_fixes("Optional:", [check for check in checks if check.status != "ok" and not check.needed])
        print("Something needed is missing: see the commands above." if fails else "All that segkit needs is there.")
    return int(fails)


def _print_table(checks: list[Check]) -> None:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:  # rich is one of the things that may be missing
        for check in checks:
            print(f"{check.name:<24} {check.version:<20} {_state(check):<18} {check.note}")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("what", "version", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("", overflow="fold")
    for check in checks:
        color = COLORS[check.status] if check.needed else "dim"
        table.add_row(check.name, check.version, Text(_state(check), style=color), Text(check.note))
    Console(highlight=False).print(table)


def _state(check: Check) -> str:
    """The status; in brackets where segkit does without."""
    return check.status if check.needed or check.status == "ok" else f"({check.status})"


def _print_machine(computer: dict[str, Any]) -> None:
    held = [name for name in ("coco", "cityscapes") if computer[name]]
    holds = f"holds {' and '.join(held)}" if held else "holds neither coco nor cityscapes"
    state = holds if computer["datasets_exists"] else "does not exist"
    print(
        f"DETECTRON2_DATASETS: {computer['datasets']} {state}; {computer['free_gb']} GB free. CPUs: {computer['cpus']}"
    )


def _print_fixes(title: str, checks: list[Check]) -> None:
    """The commands, plain installations in one."""
    commands = list(dict.fromkeys(check.fix for check in checks if check.fix))
    install = f'{python()} -m pip install "'
    asked = [command.removeprefix(install) for command in commands if command.startswith(install)]
    joined = [install + ' "'.join(asked)] if asked else []
    joined += [command for command in commands if not command.startswith(install)]
    if joined:
        print("\n".join([title, *(f"    {command}" for command in joined)]))
