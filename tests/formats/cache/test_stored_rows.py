from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segkit.formats.cache import stored_rows
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import files_below

ROWS: list[list[dict[str, Any]]] = [[{"a": 1}, {"b": [1.0, 2]}], [], [{"c": "☂"}]]
TABLE = {"names": ["x", "ü"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stored_rows.write(tmp_path / "f", {"label": 7}, TABLE, ROWS, stored_rows.ANY_JSON)
    return tmp_path / "f"


@pytest.mark.parametrize("coding", [stored_rows.ANY_JSON, stored_rows.FINITE_JSON])
def test_what_is_written_is_read(tmp_path: Path, coding: stored_rows.Coding) -> None:
    stored_rows.write(tmp_path / "f", {"label": 7}, TABLE, ROWS, coding)
    table, rows = stored_rows.load(tmp_path / "f", coding)
    assert table["names"] == TABLE["names"]
    assert repr([*rows]) == repr(ROWS)
    assert rows.counts == [2, 0, 1]
    assert rows[-1] == ROWS[-1]
    assert rows[:2] == ROWS[:2]
    assert stored_rows.read_label(tmp_path / "f") == {"label": 7}
    assert files_below(tmp_path) == {"f"}


@pytest.mark.parametrize("index", [3, -4])
def test_there_are_no_more_rows(path: Path, index: int) -> None:
    with pytest.raises(IndexError):
        stored_rows.load(path, stored_rows.ANY_JSON)[1][index]


def test_every_cut_and_every_changed_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    broken = [whole[:length] for length in range(len(whole))]
    broken += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    broken += [whole + b"\0", b"\0" + whole, whole + whole, whole[10:]]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected"):
            stored_rows.load(path, stored_rows.ANY_JSON)
    path.write_bytes(whole)
    assert [*stored_rows.load(path, stored_rows.ANY_JSON)[1]] == ROWS


@pytest.mark.parametrize(
    "table", [{"start": 0}, {"lengths": 7}, {"counts": [0, 0]}, {"counts": 7}, {"lengths": [1, 2, 3]}]
)
def test_a_table_that_does_not_fit_its_rows_is_refused(
    tmp_path: Path, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = stored_rows.json.dumps
    monkeypatch.setattr(stored_rows.json, "dumps", lambda x, **k: dumps({**x, **table} if "lengths" in x else x, **k))
    stored_rows.write(tmp_path / "f", {}, {}, [[]], stored_rows.FINITE_JSON)
    with pytest.raises(ValueError, match="expected"):
        stored_rows.load(tmp_path / "f", stored_rows.ANY_JSON)


def test_nothing_is_left_of_a_row_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        stored_rows.write(tmp_path / "f", {}, {}, [[{"a": object()}]], stored_rows.ANY_JSON)
    assert files_below(tmp_path) == set()


def test_an_open_file_outlives_its_name(path: Path) -> None:
    rows = stored_rows.load(path, stored_rows.ANY_JSON)[1]
    path.unlink()
    assert [*rows] == ROWS


def test_a_file_that_is_cut_while_it_is_open_is_reported(path: Path) -> None:
    rows = stored_rows.load(path, stored_rows.ANY_JSON)[1]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DatasetError, match="changed while the file was in use; start again"):
        rows[0]


def test_without_pread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stored_rows.load(path, stored_rows.ANY_JSON)[1]
    monkeypatch.delattr(stored_rows.os, "pread")
    assert [rows[2], rows[0], rows[1]] == [ROWS[2], ROWS[0], ROWS[1]]


def test_folders_and_missing_files_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(OSError, match=str(path)):
            stored_rows.load(path, stored_rows.ANY_JSON)
