"""Bundles that are damaged, hostile or no bundles: one clear line, before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from segkit.utils import bundles
from segkit.utils.config_files import read_config_file
from segkit.utils.errors import CheckpointError, ConfigError, SegkitError

PARTS = {"config.yaml": b"MODEL: {MASK_ON: true}\n", "model.json": b'{"version": 1}', "weights.safetensors": b"weights"}


def write_zip(path: Path, parts: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return path


def test_parts_are_read_back_and_bytes_are_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / "a.segkit", tmp_path / "b.segkit"]
    for path in paths:
        bundles.write_bundle(path, PARTS)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert {name: bundles.read_part(paths[0], name) for name in PARTS} == PARTS
    assert bundles.read_description(paths[0]) == {"version": 1}
    assert read_config_file(paths[0]) == {"MODEL": {"MASK_ON": True}}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("parts", "method", "message"),
    [
        ([("archive/data.pkl", b"")], zipfile.ZIP_STORED, r"expected a bundle .* got a zip archive with 'archive/data"),
        ([], zipfile.ZIP_STORED, "got a zip archive with nothing"),
        ([*PARTS.items(), ("../evil", b"")], zipfile.ZIP_STORED, r"got a zip archive with .*'\.\./evil'"),
        ([*PARTS.items(), ("model.json", b"{}")], zipfile.ZIP_STORED, "got a zip archive with"),
        ([*PARTS.items()], zipfile.ZIP_DEFLATED, "config.yaml in it is compressed or encrypted"),
        ([*(PARTS | {"model.json": b"{"}).items()], zipfile.ZIP_STORED, "model.json in it is no JSON"),
        ([*(PARTS | {"model.json": b"[" * 100_000}).items()], zipfile.ZIP_STORED, "model.json in it is no JSON"),
        ([*(PARTS | {"model.json": b'{"version": 2}'}).items()], zipfile.ZIP_STORED, "of version 1, got version 2"),
        ([*(PARTS | {"model.json": b"[]"}).items()], zipfile.ZIP_STORED, "of version 1, got version None"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, parts: list[tuple[str, bytes]], method: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        bundles.read_description(write_zip(tmp_path / "x.segkit", parts, method))


def test_a_part_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_TEXT_BYTES", 20)
    bundles.write_bundle(tmp_path / "x.segkit", PARTS)  # the config has 23 bytes
    with pytest.raises(CheckpointError, match=r"at most 20 bytes of config\.yaml in it, got 23"):
        bundles.read_description(tmp_path / "x.segkit")


def test_every_cut_and_every_changed_byte_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.segkit"
    bundles.write_bundle(path, PARTS)
    whole = path.read_bytes()
    start = whole.index(b"weights.safetensorsweights") + len("weights.safetensors")
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(SegkitError, match="not a readable bundle") as caught:
            bundles.read_part(path, bundles.WEIGHTS)
        assert "\n" not in str(caught.value)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x81]) + whole[position + 1 :])
        try:
            assert bundles.read_part(path, bundles.WEIGHTS) == b"weights"
        except CheckpointError:
            continue
        assert not start <= position < start + len(b"weights")


def test_claimed_sizes_are_compared_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.segkit"
    bundles.write_bundle(path, PARTS)
    content = path.read_bytes()
    size, claimed = (7).to_bytes(4, "little") * 2, (10**9).to_bytes(4, "little") * 2
    at = content.rindex(size)  # of the weights, in the directory at the end
    path.write_bytes(content[:at] + claimed + content[at + len(size) :])
    with pytest.raises(CheckpointError, match=r"claims to hold 10000000\d\d bytes, in a file of \d+"):
        bundles.read_part(path, bundles.WEIGHTS)


def test_a_config_in_a_bundle_reads_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("MODEL: {MASK_ON: false}\n")
    bundles.write_bundle(tmp_path / "x.segkit", PARTS | {"config.yaml": b"_BASE_: other.yaml\n"})
    with pytest.raises(ConfigError, match="expected a config without _BASE_ in a bundle"):
        read_config_file(tmp_path / "x.segkit")


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a bundle, found no file"):
        bundles.read_part(tmp_path / "x.segkit", bundles.WEIGHTS)
