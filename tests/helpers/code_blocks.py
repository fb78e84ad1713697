"""The fenced code blocks of the pages, and the commands of those that are for a shell."""

from __future__ import annotations

import argparse
import glob
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segkit.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL
)
ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)")
OPTIONAL = re.compile(r"\[?(\w[\w.-]*|--[\w-]+)\]?")  # a word at an end of [--option VALUE]
INDEX = "$I"  # the variable of the jobs that a scheduler starts


@dataclass(frozen=True)
class Block:
    """A code block: its page, its line there, its language ("" without one) and its text."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell: the variables before the program, the program, and its arguments."""

    variables: dict[str, str]
    program: str
    arguments: list[str]


def list_pages() -> list[Path]:
    """README.md, and the pages of docs and datasets."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "datasets").rglob("*.md"))]


def read_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        yield Block(page.relative_to(ROOT).as_posix(), line, match["language"].strip(), match["code"])


def parse_shell(code: str) -> list[Command]:
    """The commands of a shell block. Brackets around optional arguments are left out: the arguments are given."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        variables = {}
        while words and (match := ASSIGNMENT.fullmatch(words[0])):
            variables[match[1]] = match[2]
            words = words[1:]
        words = [match[1] if (match := OPTIONAL.fullmatch(word)) else word for word in words]
        if words:
            commands.append(Command(variables, words[0], words[1:]))
    return commands


def expand(words: list[str], jobs: int) -> list[list[str]]:
    """The arguments as a shell gives them, once for each job if they name the variable I, else once."""
    repeated = [[word.replace(INDEX, str(i)) for word in words] for i in range(1, jobs + 1)]
    repeated = repeated if any(INDEX in word for word in words) else [words]
    return [[path for word in job for path in (sorted(glob.glob(word)) or [word])] for job in repeated]


def parse_segkit(arguments: list[str]) -> argparse.Namespace:
    """The arguments of `segkit COMMAND ...`, read by the parser of the command; SystemExit if it refuses them."""
    assert arguments, "segkit without a command"
    assert arguments[0] in COMMANDS, f"no command {arguments[0]}"
    return build_parser(arguments[0]).parse_args(arguments[1:])
