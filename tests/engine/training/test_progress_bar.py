"""The progress bar on a terminal, and what stays on its screen."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from segkit.engine.training.progress_bar import ProgressBar
from tests.helpers.small_training import build_config, train

CODES = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def get_screen(self) -> list[str]:
        """The lines that a user sees, of the codes that rich writes."""
        lines, row, column = [""], 0, 0
        for number, code, carriage_return, new_line, text in CODES.findall(self.getvalue()):
            if code == "A":
                row -= int(number or 1)
            elif code == "K":
                assert number == "2"
                lines[row] = ""
            elif carriage_return:
                column = 0
            elif new_line:
                row, column = row + 1, 0
                lines += [""] if row == len(lines) else []
            elif text:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
            else:
                assert code in "mhl", code  # colors, and whether the cursor is shown
        return [line.rstrip() for line in lines if line.strip()]


def test_the_bar_stands_below_the_log_and_leaves_nothing_behind(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("segkit.engine.training.progress_bar.REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    cfg = build_config(toy_folder, tmp_path, SOLVER__LOG_PERIOD=2, SOLVER__MAX_ITER=4)
    handler = logging.StreamHandler(terminal)
    handler.setFormatter(logging.Formatter("LOG %(message)s"))
    logger = logging.getLogger("segkit")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    screens: list[list[str]] = []
    original = ProgressBar.after_step

    def after_step(self: ProgressBar) -> None:
        original(self)
        screens.append(terminal.get_screen())

    monkeypatch.setattr(ProgressBar, "after_step", after_step)
    try:
        train(cfg)
    finally:
        logger.removeHandler(handler)
    for step, screen in enumerate(screens, 1):
        assert not any("━" in line for line in screen[:-1]), screen  # torch may have written warnings of its own
        assert re.match(rf"training .*{step}/4", screen[-1])
    assert re.search(r"2/4 eta 0:00:\d\d$", screens[1][-1])
    assert not any("━" in line for line in terminal.get_screen())
    assert len([line for line in terminal.get_screen() if line.startswith("LOG  eta: ")]) == 2
    assert handler.filters == []


def test_there_is_no_bar_in_a_file(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file: Any = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", file)
    train(build_config(toy_folder, tmp_path, SOLVER__MAX_ITER=2))
    assert file.getvalue() == ""
