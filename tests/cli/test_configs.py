"""`segkit configs`: the list of recipes, and copies of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli.main import main
from segkit.utils.config_files import list_recipes, read_config_file

RECIPE = "toy/panoptic_rcnn_R18_FPN"


def test_recipes_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [tuple(line.split(maxsplit=1)) for line in lines] == [*list_recipes().items()]


def test_a_copy_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    name = "panoptic_rcnn_R18_FPN.yaml"
    for options, path in (
        ([], name),
        (["--output", "folder"], f"folder/{name}"),
        (["--output", "a/b.yaml"], "a/b.yaml"),
    ):
        assert main(["configs", "--copy", RECIPE, *options]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert read_config_file(Path(path))["SOLVER"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["toy/panoptic_rcnn_R18_FPN_dem"], f"did you mean {RECIPE}?"),
        ([RECIPE, "--output", "mine.yaml"], "mine.yaml: the file exists already; name another one with --output"),
        ([RECIPE, "--output", "mine.txt"], "expected a name that ends in .yaml"),
        ([RECIPE, "--output", "mine.yaml/b.yaml"], "cannot be written"),
    ],
)
def test_wrong_copies_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("A: 1\n")
    assert main(["configs", "--copy", *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert (tmp_path / "mine.yaml").read_text() == "A: 1\n"
