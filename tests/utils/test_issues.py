"""`on_issue` decides whether errors are reported one by one or raised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segkit.utils.errors import DatasetError
from segkit.utils.issues import MAX_CHARACTERS, describe_unused, raise_issue, report_missing, report_unpaired, try_read


def fail(text: str) -> str:
    raise DatasetError(text)


def test_try_read_reports_dataset_errors_only() -> None:
    messages: list[tuple[str, str]] = []

    def on_issue(code: str, error: DatasetError) -> None:
        messages.append((code, str(error)))

    assert try_read(on_issue, "code", str.upper, "a") == "A"
    assert try_read(on_issue, "code", fail, "b") is None
    assert messages == [("code", "b")]
    with pytest.raises(DatasetError, match=r"^b$"):
        try_read(raise_issue, "code", fail, "b")
    with pytest.raises(ZeroDivisionError):  # other errors than DatasetError are not issues
        try_read(on_issue, "code", lambda: 1 // 0)


def test_missing_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    names = ["zero", "there", "folder", "loop", "x" * 5000]
    messages: list[str] = []
    result = report_missing(
        lambda code, error: messages.append(f"{code} {error}"), "code", "map", [tmp_path / n for n in names], "fix"
    )
    assert result == {tmp_path / name for name in names if name != "there"}
    ending = ": the map is missing (4 of 5 are); fix"
    assert messages[:3] == [f"code {tmp_path / name}{ending}" for name in ("zero", "folder", "loop")]
    assert messages[3] == f"code {str(tmp_path / names[4])[:MAX_CHARACTERS]}...{ending}"
    with pytest.raises(DatasetError, match="zero: the map is missing"):
        report_missing(raise_issue, "code", "map", [tmp_path / "zero"], "")
    assert report_missing(raise_issue, "code", "map", [], "") == set()


def test_files_without_partner(tmp_path: Path) -> None:
    messages: list[str] = []
    result = {name: tmp_path / f"{name}.png" for name in ("a", "b", "c")}
    report_unpaired(lambda code, error: messages.append(f"{code} {error}"), "code", "no image", result, {"b": 1}, "fix")
    assert messages == [f"code {tmp_path / name}.png: no image (2 of 3 files); fix" for name in ("a", "c")]
    report_unpaired(raise_issue, "code", "no image", result, result, "fix")
    with pytest.raises(DatasetError, match=r"a\.png: no image \(3 of 3 files\)"):
        report_unpaired(raise_issue, "code", "no image", result, (), "fix")


def test_unused_files_are_reported_in_one_line() -> None:
    assert describe_unused("here", "files are left", [*"abcdefg"]) == (
        "here: 7 files are left: 'a', 'b', 'c', 'd', 'e' and 2 more",
    )
    assert describe_unused("here", "files are left", []) == ()
