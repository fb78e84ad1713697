"""The benchmark of the architectures runs, at a size at which it measures nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "models.py"


@pytest.mark.slow
def test_every_row_equals_its_reference_and_has_its_ratios() -> None:
    done = subprocess.run([sys.executable, FILE, "--tiny"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    sections = re.findall(r"^(\w+), 64 x 96, cpu, .*\n((?:  .*\n)+)", done.stdout, flags=re.MULTILINE)
    rows = re.findall(r'^    "(\w+)": Row\(', FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in sections] == rows
    for _, lines in sections:
        reference, *models = lines.splitlines()
        assert "1.00x" in reference
        assert [line.split("  ")[1] for line in models] == ["segkit", "segkit, folded only"]
        assert all("images/s" in line and "backbone" in line for line in (reference, *models))


@pytest.mark.slow
def test_an_unknown_row_is_one_line() -> None:
    done = subprocess.run([sys.executable, FILE, "u_net"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "unknown rows: u_net; choose among panoptic_rcnn_R50" in done.stderr
