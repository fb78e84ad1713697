"""run.json: command, code, versions and machines of each start of a run."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import segkit
from segkit.cli.main import main
from segkit.engine.run_record import describe_git
from tests.helpers.small_training import CONFIG, build_options


def git(folder: Path, *arguments: str) -> str:
    user = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    result = subprocess.run(["git", *user, "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return result.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model.py").write_text("a = 1\n")
    (folder / ".gitignore").write_text("venv\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_git_checkout_has_a_revision_and_may_be_dirty(checkout: Path, tmp_path: Path) -> None:
    clean = {"folder": str(checkout.resolve()), "revision": git(checkout, "rev-parse", "HEAD"), "is_dirty": False}
    (checkout / "notes.txt").write_text("not tracked")
    assert describe_git(checkout, "model.py") == describe_git(checkout) == clean
    (checkout / "model.py").write_text("a = 2\n")
    assert describe_git(checkout) == {**clean, "is_dirty": True}
    installed = checkout / "venv/package"  # installed in the environment of a project that is a checkout
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert describe_git(installed, "__init__.py") is None
    assert describe_git(tmp_path) is None
    assert describe_git(tmp_path / "nothing") is None


def test_without_git_there_is_no_revision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert describe_git(checkout) is None


def test_each_start_of_a_run_has_an_entry(
    toy_folder: Path, tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    output = tmp_path / "run"

    def run(*flags: str, iterations: int) -> list[dict[str, Any]]:
        options = build_options(toy_folder, output, SOLVER__MAX_ITER=iterations)
        monkeypatch.setattr("sys.argv", ["segkit", "train", *flags])
        assert main(["train", *flags, "--config-file", CONFIG, *options]) == 0
        entries: list[dict[str, Any]] = json.loads((output / "run.json").read_text())
        assert entries[-1]["overrides"] == options
        return entries

    (first,) = run(iterations=1)
    assert (first["task"], first["resume"], first["command"]) == ("train", False, ["segkit", "train"])
    assert first["config_file"].endswith(f"{CONFIG}.yaml")
    assert first["git"]["working_directory"]["revision"] == git(checkout, "rev-parse", "HEAD")
    assert first["versions"]["torch"] == str(torch.__version__)
    assert first["versions"]["segkit"] == segkit.__version__
    assert (first["hosts"], first["processes"], first["devices"]) == ([platform.node()], 1, ["cpu"])

    assert [entry["resume"] for entry in run("--resume", iterations=2)] == [False, True]
    (output / "run.json").write_text("[{")  # damaged
    assert [entry["resume"] for entry in run("--resume", iterations=3)] == [True]
    assert [entry["resume"] for entry in run(iterations=1)] == [False]  # from the beginning
