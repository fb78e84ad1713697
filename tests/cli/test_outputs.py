"""Outputs that cannot be written: every command says so in one line, before it reads its inputs, and leaves nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segkit.cli.main import main
from tests.helpers import saved_heads

DEMO = "toy/panoptic_rcnn_R18_FPN"
COCO = "--format coco-panoptic --json no.json --masks no --images no"
# Commands that write, with the name of what they write at the end. No file exists that they name, but for image.png.
FILES = [
    "evaluate panoptic --gt no.json --pred no.json --output metrics.json",
    "evaluate panoptic --gt no.json --pred no.json --save-counts counts.npz",
    "evaluate instances --gt no.json --pred no.json --output metrics.json",
    "evaluate semantic --gt no --pred no --output metrics.json",
    "evaluate merge no.npz --output metrics.json",
    "evaluate merge no.npz --save-counts counts.npz",
    "compare no.npz no.npz --output metrics.json",
    "fuse draw --predictions no --images no --image 1 --output grid.png",
    "fuse priors --gt no.json --output priors.json",
    f"data check {COCO} --output issues.json",
    f"data view {COCO} --output page.html",
    f"data view {COCO} --output grid.png",
]
FOLDERS = [
    "fuse run --predictions no --method heuristic --output fused",
    "fuse sweep --predictions no --gt no.json --methods heuristic --output swept",
    "data toy --images 1 --output toy",
    f"data convert {COCO.replace('--format', '--from')} --to voc --output converted",
    f"data check {COCO} --fix repaired",
    f"data stats {COCO} --output stats",
    "data panoptic-stuff --json no.json --masks no --output stuff",
]
TRAINING = [  # these need torch
    f"fuse save --config-file {DEMO} --weights no.pth --output saved",
    f"predict --config-file {DEMO} --weights no.pth --input image.png --output predicted",
    f"train --config-file {DEMO} OUTPUT_DIR trained",
    f"train --eval-only --config-file {DEMO} OUTPUT_DIR evaluated",
    f"demo --config-file {DEMO} --output demo",
]
ALL = [*FILES, *FOLDERS, *TRAINING]
COPY = f"configs --copy {DEMO} --output mine.yaml"  # it writes at once, and into a folder too


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("image.png").write_text("no image")


def read_tree() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def refuse(command: str, output: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command with another output. Returns its error; nothing was printed or written."""
    if command in TRAINING:
        pytest.importorskip("detectron2")
    before = read_tree()
    words = [*command.split()[:-1], output]
    assert main(words) in (1, 2)
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("segkit ")
    assert error.count("\n") == 1, error
    assert read_tree() == before
    return error


@pytest.mark.parametrize("command", [*ALL, COPY])
def test_outputs_below_a_file_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.split()[-1]
    assert f"image.png/{name}" in refuse(command, f"image.png/{name}", capsys)
    assert "cannot be written: Not a directory" in refuse(command, f"image.png/folder/{name}", capsys)


@pytest.mark.parametrize("command", ALL)
def test_a_full_disk_is_found_before_the_work(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    name = command.split()[-1]
    for output in (name, f"a/b/{name}"):
        error = refuse(command, output, capsys)
        assert output in error
        assert ": cannot be written: No space left on device" in error


@pytest.mark.parametrize("command", FILES)
def test_a_folder_is_no_file_to_write(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.split()[-1]
    Path(name).mkdir()
    error = refuse(command, name, capsys)
    assert f"{name}: " in error
    assert "folder" in error


@pytest.mark.parametrize("command", [*FOLDERS, *TRAINING])
def test_a_file_is_no_folder_to_write(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("taken")
    error = refuse(command, "taken", capsys)
    assert "taken" in error


@pytest.mark.parametrize(
    "command",
    [
        "evaluate panoptic --gt image.png --pred no.json --output image.png",
        "evaluate instances --gt no.json --pred image.png --save-counts ./image.png",
        "evaluate semantic --gt no --pred no --categories image.png --output image.png",
        "evaluate merge no.npz image.png --save-counts image.png",
        "compare image.png no.npz --output image.png",
        "compare no.json no.npz --gt image.png --output image.png",
        "fuse priors --gt no.json --instances image.png --output image.png",
        f"data check {COCO.replace('no.json', 'image.png')} --output image.png",
    ],
)
def test_inputs_are_not_overwritten(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refuse(command, command.split()[-1], capsys)
    assert "would overwrite an input" in error or "--output is --json" in error


@pytest.mark.parametrize("command", ["data toy --images 1", "data convert", "fuse run"])
def test_a_disk_that_gets_full_leaves_nothing_and_no_hidden_name_is_shown(
    command: str, toy_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, _ = saved_heads.write(Path("heads"), 1)
    toy = f"--json {toy_folder}/panoptic.json --masks {toy_folder}/panoptic --images {toy_folder}/images"
    inputs = {
        "data convert": f"--from coco-panoptic {toy} --to voc",
        "fuse run": f"--predictions {saved} --method heuristic",
    }

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", fail)
    error = refuse(f"{command} {inputs.get(command, '')} --output out", "out", capsys)
    assert "out/" in error
    assert ".segkit" not in error
