"""Whatever is printed, drawn or logged: escape sequences of names do not reach the terminal."""

import argparse
import io
import logging
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from rich.table import Table
from rich.text import Text

from segkit.utils.console import open_console
from segkit.utils.terminal import EscapingStream, color_logs, escape_output

EVIL = "cat\x1b]0;owned\x07\x1b[31m[red]\u202e:cat:\udcff"


class Terminal(io.StringIO):
    """A terminal that shows colors."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Not set as sys.stdout yet: pytest replaces that between the fixtures and the test."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@contextmanager
def writing_to(stream):
    with redirect_stdout(stream), redirect_stderr(stream):
        yield


def print_it():
    print(EVIL)


def print_lines():
    sys.stdout.writelines([EVIL, "\n"])


def fail_parsing():
    with pytest.raises(SystemExit):
        argparse.ArgumentParser().parse_args([EVIL])


def draw():
    table = Table(EVIL, title=EVIL)
    table.add_row(Text(EVIL))
    open_console().print(table, EVIL)


@pytest.mark.parametrize("write", [print_it, print_lines, fail_parsing, draw])
def test_names_are_escaped(terminal, write):
    with writing_to(terminal), escape_output():
        write()
    shown = terminal.getvalue()
    assert not {"\x07", "\u202e", "\udcff"} & {*shown}
    assert "\x1b]" not in shown
    assert "\x1b[31m" not in shown
    assert r"cat\x1b]0" in shown
    assert "[red]" in "".join(shown.split())


def test_tables_keep_their_own_colors(terminal):
    with writing_to(terminal), escape_output():
        open_console().print(Table("head", title="title", title_style="red"))
    assert "\x1b[31m" in terminal.getvalue()


def test_streams_come_back_and_stay_what_they_are(terminal):
    with writing_to(terminal):
        with escape_output():
            assert isinstance(sys.stdout, EscapingStream)
            assert not sys.stdout.isatty()
            with escape_output():
                print("é\r\n", end="")
        assert sys.stdout is terminal
    assert terminal.getvalue() == "é\\r\n"


def test_logs_are_escaped_and_keep_the_colors_of_their_format(terminal):
    logger = logging.getLogger("tests.terminal")
    logger.propagate = False
    with writing_to(terminal), escape_output():
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("\x1b[32m%(levelname)s\x1b[0m %(message)s"))
        logger.addHandler(handler)
        try:
            color_logs()
            logger.warning("%s: \x1b[36mcolored by a library\x1b[0m", EVIL)
            try:
                raise ValueError(EVIL)
            except ValueError:
                logger.exception("failed")
        finally:
            logger.removeHandler(handler)
    shown = terminal.getvalue()
    assert shown.count("\x1b[32mWARNING\x1b[0m ") == 1
    assert "colored by a library" in shown
    assert shown.count("\x1b") == 4  # two messages with the colors of the format
    assert "ValueError: cat\\x1b]0" in shown


def test_characters_that_the_encoding_lacks_are_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with writing_to(stream), escape_output():
        print("猫")
    assert raw.getvalue() == b"\\u732b\n"
