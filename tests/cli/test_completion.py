"""`segkit completion`: the scripts, run by the shells that are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from segkit.cli.completion import list_command_words
from segkit.cli.main import COMMANDS, main

NUCLEI = {"classical_otsu_watershed", "mask2former_R18", "panoptic_rcnn_R18_FPN", "unet", "unet_watershed"}
NUCLEI = {f"nuclei/{name}" for name in NUCLEI}
CASES = [
    ("da", {"data"}),
    ("--v", {"--version"}),
    ("data ch", {"check"}),
    ("data check --fo", {"--format"}),
    ("data check --format coco-", {"coco-instances", "coco-panoptic", "coco-results"}),
    ("data convert --json J --to vo", {"voc"}),
    ("configs --copy nuc", NUCLEI),
    ("train --config-file nuc", {*NUCLEI, "nuclear.yaml"}),
    ("evaluate instances --protocol ci", {"cityscapes"}),
    ("fuse run --method pri", {"priority"}),
    ("completion z", {"zsh"}),
]
BASH = """
source "$1"
COMP_WORDS=(/usr/bin/segkit "${@:2}")
COMP_CWORD=$(($# - 1))
_segkit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file that is named like a recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclear.yaml").touch()
    return tmp_path


@pytest.fixture
def script(request: pytest.FixtureRequest, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script of the shell that the test names."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    assert main(["completion", request.param]) == 0
    path = folder / f"script.{request.param}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def run(*command: str) -> list[str]:
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split("\n")


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_the_shell_reads_the_script(script: Path) -> None:
    run(script.suffix[1:], "-n", str(script))


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_bash_completes(script: Path, line: str, expected: set[str]) -> None:
    assert set(run("bash", "-c", BASH, "bash", str(script), *line.split(" "))) - {""} == expected


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_every_value_of_an_option_that_takes_several(script: Path) -> None:
    words = ["evaluate", "instances", "--iou-types", "bbox", "s"]
    assert run("bash", "-c", BASH, "bash", str(script), *words)[0] == "segm"
    assert run("bash", "-c", BASH, "bash", str(script), *words[:-1], "--prot")[0] == "--protocol"


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes(script: Path) -> None:
    for line, expected in CASES:
        lines = run("fish", "--no-config", "-c", f"source {script}; complete -C 'segkit {line}'")
        assert {text.partition("\t")[0] for text in lines} - {""} == expected, line


def test_every_command_and_option_is_listed() -> None:
    words = {command.location: command for command in list_command_words()}
    assert {*words["segkit"].commands} == {*COMMANDS}
    assert {f"segkit {name}" for name in COMMANDS} <= {*words}
    for name, command in words.items():
        assert "--help" in {option.name for option in command.options}, name
    assert "--install-detectron2" in {option.name for option in words["segkit doctor"].options}
    assert [*words["segkit completion"].commands] == ["bash", "zsh", "fish"]


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
