"""Saved counts and head outputs that hold objects or unpack to far more than they are: one line, and no code runs."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.cli.main import main
from tests.helpers.saved_heads import write

HUGE = 20_000_000  # bytes, which deflate to 20 kB


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def pack(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def replace_member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, kept in {**members, name: content}.items():
            archive.writestr(member, kept)


@pytest.fixture
def contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setenv("SEGKIT_MAX_UNPACKED_BYTES", str(HUGE // 2))
    objects = np.array([Harmful(tmp_path / "harmed")], dtype=object)
    return {"objects": pack(objects), "bomb": pack(np.zeros(HUGE, np.uint8)), "pickle": b"cos\nsystem\n(S'false'\ntR."}


@pytest.mark.parametrize("kind", ["objects", "bomb", "pickle"])
@pytest.mark.parametrize("command", ["compare", "evaluate merge"])
def test_counts(
    command: str, kind: str, contents: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, ground_truth = write(tmp_path, 2)
    prediction, counts = tmp_path / "out/panoptic.json", tmp_path / "counts.npz"
    fuse = ["fuse", "run", "--predictions", saved, "--method", "heuristic", "--output", tmp_path / "out"]
    score = ["evaluate", "panoptic", "--gt", ground_truth, "--pred", prediction, "--save-counts", counts]
    for words in (fuse, score):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    with zipfile.ZipFile(counts) as archive:
        name = next(name for name in archive.namelist() if name.startswith("state_"))
    replace_member(counts, name, contents[kind])
    capsys.readouterr()
    assert main([*command.split(), str(counts), *([str(counts)] if command == "compare" else [])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(counts) in line
    assert "give a file that --save-counts wrote" in line or "SEGKIT_MAX_UNPACKED_BYTES" in line
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("kind", ["objects", "bomb", "pickle"])
def test_head_outputs(
    kind: str, contents: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, _ = write(tmp_path, 2)
    replace_member(saved / "1.npz", "channels.npy", contents[kind])
    words = ["fuse", "run", "--predictions", saved, "--method", "heuristic", "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(saved / "1.npz") in line
    assert "save the predictions again" in line
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "out/panoptic.json").exists()
