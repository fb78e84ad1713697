from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from segkit.formats.png import read_header, read_id_runs
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_writable, dump_json, load_json, no_garbage_collection, read_bytes, replacing
from tests.helpers.coco_samples import files_below


def test_replacing_creates_the_folder_and_leaves_only_the_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a" / "b" / "file.txt") as neighbour:
        neighbour.write_text("whole")
        assert neighbour.parent == tmp_path / "a" / "b"
    assert files_below(tmp_path) == {"a/b/file.txt"}
    assert (tmp_path / "a/b/file.txt").read_text() == "whole"


def test_replacing_keeps_the_earlier_file_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")

    def write_half() -> None:
        with replacing(path) as neighbour:
            neighbour.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert files_below(tmp_path) == {"file.txt"}
    assert path.read_text() == "earlier"


def test_json_round_trip(tmp_path: Path) -> None:
    content = {"name": "Füße ☂", "numbers": [1, 2.5, None, True]}
    dump_json(tmp_path / "x.json", content)
    assert load_json(tmp_path / "x.json") == content


@pytest.mark.parametrize("content", [{"score": float("nan")}, [object()], float("inf")])
def test_values_that_json_cannot_hold_leave_no_file(tmp_path: Path, content: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        dump_json(tmp_path / "x.json", content)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfa", b"{'a': 1}", b"9" * 5000])
def test_invalid_json_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"x\.json: expected JSON, got {len(content)} bytes"):
        load_json(path)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000])
def test_json_that_is_nested_too_deeply_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.json: expected JSON, got lists or objects nested too deeply"):
        load_json(tmp_path / "x.json")


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"x\.json: expected a file, found nothing; check the path"):
        load_json(tmp_path / "x.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_bytes(tmp_path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_bytes(Path("nul\0"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    for read in (load_json, read_bytes, read_header, read_id_runs):
        with pytest.raises(DatasetError, match=r"x\.json: the file cannot be read: this is a folder, a pipe"):
            read(tmp_path / "x.json")


def test_the_garbage_collector_is_restored() -> None:
    assert gc.isenabled()
    with no_garbage_collection(), no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"), no_garbage_collection():
        raise ValueError("inside")
    assert gc.isenabled()


def test_output_paths_are_checked_in_advance(tmp_path: Path) -> None:
    check_writable(tmp_path / "deep/counts")
    assert [*tmp_path.rglob("*")] == []
    with pytest.raises(DatasetError, match="this is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written"):
        check_writable(tmp_path / "file/counts")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="this is a device"):
        check_writable(tmp_path / "pipe")
