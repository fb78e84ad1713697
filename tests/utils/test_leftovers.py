"""Temporary files of killed processes are removed by the next one; those of live processes stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segkit.utils import leftovers
from segkit.utils.errors import DatasetError
from segkit.utils.files import check_output_folder, new_folder, replacing

WRITE_FOREVER = """
import signal, sys, time
from pathlib import Path
from segkit.utils.files import new_folder, replacing
from segkit.utils.signals import raising_terminated
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
with raising_terminated(), new_folder(Path(sys.argv[1])) as folder, replacing(folder.parent / "file") as path:
    (folder / "half").write_text("half")
    path.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing a folder and a file below tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, tmp_path / "new"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def search_again(folder: Path) -> None:
    """As a process does that writes into the folder for the first time."""
    leftovers._searched.clear()
    check_output_folder(folder)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_leaves_nothing(tmp_path, writer, number):
    writer.send_signal(number)
    assert writer.wait(timeout=30) == 128 + number
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_the_next_process_removes_what_a_killed_one_left(tmp_path, writer):
    (tmp_path / ".notes.tmp").write_text("of the user")
    search_again(tmp_path)
    assert len(hidden(tmp_path)) == 3  # the process is alive
    writer.kill()
    writer.wait(timeout=30)
    search_again(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".notes.tmp"]


def test_files_of_other_machines_stay(tmp_path):
    foreign = tmp_path / ".segkit-00000000-1-1-0123456789abcdef.tmp"
    foreign.write_text("")
    search_again(tmp_path)
    assert foreign.exists()


def test_a_number_that_another_process_got_is_no_owner(tmp_path, monkeypatch):
    old = tmp_path / leftovers.choose_name()
    old.mkdir()
    monkeypatch.setattr(leftovers, "get_process_start", lambda pid: 7)
    search_again(tmp_path)
    assert not old.exists()


def test_nothing_stays_of_folders_that_were_made(tmp_path):
    check_output_folder(tmp_path / "a" / "b")
    for write in (replacing, new_folder):
        with pytest.raises(ZeroDivisionError), write(tmp_path / "a" / "b"):
            raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["file", "file/folder", "x" * 300])
def test_folders_that_cannot_be_made_are_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"this is a file|cannot be written"):
        check_output_folder(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
