"""Faults are told one by one, or end the work, as `tell` decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segkit.formats.source import refuse
from segkit.formats.telling import MAX_CHARACTERS, attempt, missing
from segkit.structures import DatasetError


def fail(text: str) -> str:
    raise DatasetError(text)


def test_attempt() -> None:
    told: list[tuple[str, str]] = []

    def tell(code: str, error: DatasetError) -> None:
        told.append((code, str(error)))

    assert attempt(tell, "code", str.upper, "a") == "A"
    assert attempt(tell, "code", fail, "b") is None
    assert told == [("code", "b")]
    with pytest.raises(DatasetError, match=r"^b$"):
        attempt(refuse, "code", fail, "b")
    with pytest.raises(ZeroDivisionError):  # what is no fault of the data is no finding
        attempt(tell, "code", lambda: 1 // 0)


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    names = ["zero", "there", "folder", "loop", "x" * 5000]
    told: list[str] = []
    found = missing(
        lambda code, error: told.append(f"{code} {error}"), "code", "map", [tmp_path / n for n in names], "fix"
    )
    assert found == {tmp_path / name for name in names if name != "there"}
    ending = ": the map is missing (4 of 5 are); fix"
    assert told[:3] == [f"code {tmp_path / name}{ending}" for name in ("zero", "folder", "loop")]
    assert told[3] == f"code {str(tmp_path / names[4])[:MAX_CHARACTERS]}...{ending}"
    with pytest.raises(DatasetError, match="zero: the map is missing"):
        missing(refuse, "code", "map", [tmp_path / "zero"], "")
    assert missing(refuse, "code", "map", [], "") == set()
