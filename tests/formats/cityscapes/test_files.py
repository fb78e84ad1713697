"""The files of a Cityscapes split."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.formats.cityscapes import INSTANCE_IDS_SUFFIX
from segkit.formats.cityscapes.reader import find_annotations
from segkit.utils.errors import DatasetError
from segkit.utils.issues import raise_issue


def _tree(root: Path) -> None:
    for city, name in (("zurich", "zurich_000000_000001"), ("aachen", "aachen_000000_000002")):
        for folder, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
            path = root / folder / "val" / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "leftImg8bit/val/zurich/notes.txt").touch()


def test_images_and_annotations_are_sorted(tmp_path: Path) -> None:
    _tree(tmp_path)
    pairs = find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, raise_issue)
    assert [*pairs] == [
        tmp_path / f"leftImg8bit/val/{name}_leftImg8bit.png"
        for name in ("aachen/aachen_000000_000002", "zurich/zurich_000000_000001")
    ]
    first = tmp_path / "leftImg8bit/val/aachen/aachen_000000_000002_leftImg8bit.png"
    assert pairs[first] == tmp_path / "gtFine/val/aachen/aachen_000000_000002_gtFine_instanceIds.png"


def test_missing_folders_and_files_raise_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_annotations(tmp_path, "x" * 5000, INSTANCE_IDS_SUFFIX, raise_issue)
    with pytest.raises(DatasetError, match=r"leftImg8bit.val: no such folder; expected leftImg8bit/<split>"):
        find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, raise_issue)
    (tmp_path / "leftImg8bit/val/aachen").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"gtFine.val: no such folder; expected"):
        find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, raise_issue)
    (tmp_path / "gtFine/val").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"leftImg8bit.val: the split has no image; expected"):
        find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, raise_issue)
    _tree(tmp_path)
    (tmp_path / "gtFine/val/zurich/zurich_000000_000001_gtFine_instanceIds.png").unlink()
    issues: list[tuple[str, DatasetError]] = []
    (image_path,) = find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, lambda *issue: issues.append(issue))
    assert image_path.name == "aachen_000000_000002_leftImg8bit.png"
    assert [code for code, _ in issues] == ["png-missing"]
    with pytest.raises(
        DatasetError,
        match=r"zurich_000000_000001_gtFine_instanceIds\.png: the ground truth is missing \(1 of 2 are\); expected",
    ) as caught:
        find_annotations(tmp_path, "val", INSTANCE_IDS_SUFFIX, raise_issue)
    assert str(caught.value) == str(issues[0][1])
