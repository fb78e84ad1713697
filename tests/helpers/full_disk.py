"""A disk that gets full while the largest file of a command is written."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segkit.cli.main import main
from segkit.utils import files


def check_full_disk(command: Sequence[Any], folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Runs `segkit COMMAND --output ...` without and with such a disk. Returns what is left: whole files only."""
    whole, cut = folder / "whole", folder / "cut"
    assert main([*map(str, command), "--output", str(whole)]) == 0
    largest = max((path for path in whole.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    capsys.readouterr()
    monkeypatch.setattr(files, "PROBE_BYTES", 1)  # otherwise the disk is found to be full before the work
    with limiting_files(largest.stat().st_size - 1):
        assert main([*map(str, command), "--output", str(cut)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert str(cut) in error
    assert "cannot be written: File too large; name another place, or make room" in error
    left = {str(path.relative_to(cut)) for path in cut.rglob("*") if path.is_file()}
    for name in left:
        content, expected = (cut / name).read_bytes(), (whole / name).read_bytes()
        is_log = name.endswith(".jsonl")  # it grows line by line
        assert expected.startswith(content) and content.endswith(b"\n") if is_log else content == expected, name
    assert not [*folder.rglob(".*")]
    return left


@contextmanager
def limiting_files(size: int) -> Iterator[None]:
    """Files get no larger in the block: writing more is an OSError, as on a full disk, and leaves what fits."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
