"""What is printed of a repaired copy does not promise the repair that it just had."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli.main import main
from tests.helpers.damaged_datasets import panoptic


def test_what_a_copy_is_left_with_is_not_said_to_be_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The id of a category is mistyped, and an iscrowd; the other words of the remedies stay."""
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["categories"][0]["id"] = -1
    content["annotations"][0]["segments_info"][1]["iscrowd"] = 2
    data.store(content)
    places = "--json", data.json_path, "--masks", data.masks, "--images", data.images, "--fix", tmp_path / "copy"
    assert main(["data", "check", "--format", "coco-panoptic", *map(str, places)]) == 1
    found, left = capsys.readouterr().out.split("a repaired copy; of it:\n")
    head = "error category-unknown (6): a category_id is not among the categories; add the category"
    assert f"{head}; --fix (COCO) mends it by dropping\n" in found
    assert f"{head}\n" in left
    assert "--fix" not in left
    assert "iscrowd is not 0 or 1; write 0 or 1\n" in left
