"""The files of a Cityscapes split."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.formats import cityscapes
from segkit.utils.errors import DatasetError


def _tree(root: Path) -> None:
    for city, name in (("zurich", "zurich_000000_000001"), ("aachen", "aachen_000000_000002")):
        for folder, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
            path = root / folder / "val" / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "leftImg8bit/val/zurich/notes.txt").touch()


def test_scan_is_sorted(tmp_path: Path) -> None:
    _tree(tmp_path)
    first, second = cityscapes.find_records(tmp_path, "val")
    assert first.image_id == "aachen_000000_000002"
    assert first.image_path == tmp_path / "leftImg8bit/val/aachen/aachen_000000_000002_leftImg8bit.png"
    assert first.ground_truth_path == tmp_path / "gtFine/val/aachen/aachen_000000_000002_gtFine_instanceIds.png"
    assert second.image_id == "zurich_000000_000001"


def test_scan_faults(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        cityscapes.find_records(tmp_path, "x" * 5000)
    with pytest.raises(DatasetError, match=r"leftImg8bit.val: no such folder; expected leftImg8bit/<split>"):
        cityscapes.find_records(tmp_path, "val")
    (tmp_path / "leftImg8bit/val/aachen").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"gtFine.val: no such folder; expected"):
        cityscapes.find_records(tmp_path, "val")
    (tmp_path / "gtFine/val").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"leftImg8bit.val: the split has no image; expected"):
        cityscapes.find_records(tmp_path, "val")
    _tree(tmp_path)
    (tmp_path / "gtFine/val/zurich/zurich_000000_000001_gtFine_instanceIds.png").unlink()
    told: list[tuple[str, DatasetError]] = []
    (left,) = cityscapes.find_records(tmp_path, "val", on_issue=lambda *fault: told.append(fault))
    assert left.image_id == "aachen_000000_000002"
    assert [code for code, _ in told] == ["png-missing"]
    with pytest.raises(
        DatasetError,
        match=r"zurich_000000_000001_gtFine_instanceIds\.png: the ground truth is missing \(1 of 2 are\); expected",
    ) as caught:
        cityscapes.find_records(tmp_path, "val")
    assert str(caught.value) == str(told[0][1])
