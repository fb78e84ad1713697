"""A disk that gets full midway: one line that names the place, and whole files or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.formats.registry import WRITERS
from tests.helpers import saved_heads

pytest.importorskip("resource", reason="needs a limit on the size of files")
from tests.helpers.full_disk import check_full_disk

OTHER_SCENES = {
    "cityscapes",
    "cityscapes-submission",
    "decathlon",
    "vipseg",
}  # classes, slices or frames that toy scenes are not


@pytest.mark.parametrize("to", sorted({*WRITERS} - OTHER_SCENES))
def test_convert_leaves_nothing(
    to: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("--json", toy_folder / "panoptic.json", "--masks", toy_folder / "panoptic")
    dataset = ("--from", "coco-panoptic", *places, "--images", toy_folder / "images", "--to", to)
    assert check_full_disk(["data", "convert", *dataset], tmp_path, capsys, monkeypatch) == set()


def test_single_files_are_whole(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("--json", toy_folder / "panoptic.json", "--masks", toy_folder / "panoptic")
    stuff = check_full_disk(
        ["data", "panoptic-stuff", *places, "--workers", 2], tmp_path / "stuff", capsys, monkeypatch
    )
    assert 0 < len(stuff) < 12
    stats = ["data", "stats", "--format", "coco-panoptic", *places, "--images", toy_folder / "images"]
    assert check_full_disk(stats, tmp_path / "stats", capsys, monkeypatch) == {"stats.json"}


def test_fuse_run_leaves_all_but_the_report_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, _ = saved_heads.write(tmp_path / "few", 3, count=1)
    command = ["fuse", "run", "--method", "heuristic", "--workers", 2]
    left = check_full_disk([*command, "--explain", "--predictions", few], tmp_path / "explained", capsys, monkeypatch)
    assert left == {"panoptic.json", "dropped_segments.json", *(f"panoptic/{i}.png" for i in range(3))}
    many, _ = saved_heads.write(tmp_path / "many", 30)
    assert check_full_disk([*command, "--predictions", many], tmp_path / "fused", capsys, monkeypatch) == set()
