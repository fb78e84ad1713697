"""Compiled and plain functions give equal results; an environment variable switches compilation off."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from segkit.utils import compiled as module
from segkit.utils.compiled import compiled


def add_up(values: np.ndarray) -> int:
    """Sum."""
    total = 0
    for value in values:
        total += value
    return total


def test_compiled_and_plain_functions_are_equal() -> None:
    values = np.arange(5)
    assert compiled(add_up)(values) == add_up(values) == 10
    assert compiled(add_up).__doc__ == "Sum."


def test_without_compilation_the_function_is_returned_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", False)
    assert compiled(add_up) is add_up


@pytest.mark.skipif(not module.COMPILED, reason="needs numba")
def test_with_compilation_the_function_is_machine_code() -> None:
    function = compiled(add_up)
    assert function is not add_up
    assert function.py_func is add_up  # type: ignore[attr-defined]


@pytest.mark.parametrize(("setting", "expected"), [("0", False), ("1", module.INSTALLED), ("", module.INSTALLED)])
def test_the_environment_variable_switches_compilation(setting: str, expected: bool) -> None:
    code = "from segkit.utils.compiled import COMPILED; print(COMPILED)"
    environment = {**os.environ, "SEGKIT_COMPILED": setting}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(expected)


def test_without_numba_nothing_is_compiled() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from segkit.utils.compiled import COMPILED, INSTALLED, compiled\n"
        "f = lambda: 1\n"
        "print(COMPILED, INSTALLED, compiled(f) is f)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False True"
