"""The checksum of a checkpoint: every change is found, and other readers still read the file."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest
import torch

from segkit.engine.checkpoints import footer
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.footer import ChecksumWriter, DamagedFileError, check_whole, read_footer
from segkit.engine.checkpoints.safe_load import load_torch
from segkit.utils.errors import CheckpointError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    SafeCheckpointer(torch.nn.Linear(16, 8), str(tmp_path)).save("w", iteration=7)
    return tmp_path / "w.pth"


def is_found(path: Path, content: bytes) -> bool:
    """Whether the file with another content is an error of one line."""
    path.write_bytes(content)
    message = ""
    try:
        load_torch(path)
    except DamagedFileError as error:
        message = str(error)
    return message.startswith(f"{path}: ") and "\n" not in message and "damaged" in message


def test_other_readers_read_the_file(checkpoint: Path) -> None:
    for mmap in (False, True):
        loaded = torch.load(checkpoint, weights_only=True, mmap=mmap)
        assert loaded["iteration"] == 7
        assert loaded["model"]["weight"].shape == (8, 16)
    with zipfile.ZipFile(checkpoint) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b'{"segkit_checkpoint": 1, "started": "20')
    found = check_whole(checkpoint)
    assert found == read_footer(checkpoint)
    assert (found.format, found.iteration) == (1, 7)


def test_flipped_bits_are_found_anywhere(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    generator = random.Random(0)
    length = len(whole)
    footer_bits = [8 * (length - 1 - i) + generator.randrange(8) for i in range(0, 230, 3)]
    bits = [generator.randrange(8 * length) for _ in range(60)] + footer_bits + list(range(32))
    for bit in bits:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        assert is_found(checkpoint, bytes(changed)), f"bit {bit % 8} of byte {bit // 8} of {length}"
    assert not is_found(checkpoint, whole)


def test_truncated_and_empty_files_are_found(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    lengths = [0, 1, 3, 4, 22, len(whole) - 1, len(whole) - 66, *range(50, len(whole), len(whole) // 20)]
    assert all(is_found(checkpoint, whole[:length]) for length in lengths)
    assert is_found(checkpoint, whole[:-300] + bytes(300)), "a block that never reached the disk"


def test_zips_of_other_tools_are_tested_by_their_crcs(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {"weight": torch.zeros(1000)}}, path)
    assert read_footer(path) is None
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(bytes(3000)) + 1500] = 1  # in the zeros of the tensor
    assert is_found(path, bytes(changed))
    assert not is_found(path, whole)
    torch.save({"weight": torch.zeros(5)}, path, _use_new_zipfile_serialization=False)
    assert check_whole(path) is None


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes CRCs")
def test_zips_without_crcs_load(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(5)}, tmp_path / "w.pth")
        SafeCheckpointer(torch.nn.Linear(16, 8), str(tmp_path)).save("own")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_torch(tmp_path / "w.pth")["weight"].sum() == 5
    assert load_torch(tmp_path / "own.pth")["model"]["bias"].shape == (8,)


@pytest.mark.parametrize(
    "fields",
    ['"segkit_checkpoint": "1"', '"started": []', '"iteration": "7"', '"iteration": [[[]]]', '"started": 1e999', '"a'],
)
def test_footers_of_strangers_are_damaged_files(checkpoint: Path, fields: str) -> None:
    start = '{"segkit_checkpoint": 1, "started": "", "iteration": 1, '
    assert is_found(checkpoint, checkpoint.read_bytes() + f'{start}{fields}, "sha256": "{"0" * 64}"}}'.encode())


def test_a_zip_that_unpacks_to_more_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(100_000))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    assert check_whole(tmp_path / "w.pth") is None
    with pytest.raises(CheckpointError, match="has compressed parts"):
        load_torch(tmp_path / "w.pth")


def test_a_later_format_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footer, "FORMAT", 2)
    SafeCheckpointer(torch.nn.Linear(16, 8), str(checkpoint.parent)).save("w")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"a later version .* format 2, this version reads 1; update segkit"):
        load_torch(checkpoint)


def test_the_writer_takes_pieces_of_any_size() -> None:
    whole, pieces = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(plain := io.BytesIO(), "w") as archive:
        archive.writestr("a", bytes(range(256)))
    for target, size in ((whole, 10_000), (pieces, 7)):
        writer = ChecksumWriter(target)
        content = plain.getvalue()
        for start in range(0, len(content), size):
            assert writer.write(content[start : start + size]) == len(content[start : start + size])
        writer.finish("", None)
    assert whole.getvalue() == pieces.getvalue()
    with zipfile.ZipFile(whole) as archive:
        assert archive.read("a") == bytes(range(256))
    with pytest.raises(RuntimeError):
        ChecksumWriter(io.BytesIO()).finish("", None)
