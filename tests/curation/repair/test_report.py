"""The issues of a repaired copy do not suggest --fix as a remedy again."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli.main import main
from segkit.curation.issues import FIX
from tests.helpers.damaged_datasets import panoptic


def test_remaining_issues_of_a_copy_do_not_suggest_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A category id and an iscrowd are wrong; the rest of their remedies is printed."""
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["categories"][0]["id"] = -1
    content["annotations"][0]["segments_info"][1]["iscrowd"] = 2
    data.store(content)
    path_options = "--json", data.json_path, "--masks", data.masks, "--images", data.images, "--fix", tmp_path / "copy"
    assert main(["data", "check", "--format", "coco-panoptic", *map(str, path_options)]) == 1
    before, after = capsys.readouterr().out.split("a repaired copy")
    head = "error category-unknown (6): a category_id is not among the categories; add the category"
    assert f"{head}; {FIX} by dropping\n" in before
    assert f"{head}\n" in after
    assert "--fix" not in after
    assert "iscrowd is not 0 or 1; write 0 or 1\n" in after
