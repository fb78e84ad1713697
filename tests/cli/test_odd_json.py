"""JSON in other encodings, with repeated keys and nested deeply, through the commands: read right, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli.main import main
from tests.helpers.damaged_datasets import Broken, panoptic

DEEP = 100_000


def list_commands(data: Broken, output: Path) -> dict[str, list[object]]:
    paths = ["--json", data.json_path, "--masks", data.masks, "--images", data.images]
    sides = ["--gt", data.json_path, "--pred", data.json_path, "--gt-folder", data.masks, "--pred-folder", data.masks]
    return {
        "evaluate": ["evaluate", "panoptic", *sides],
        "check": ["data", "check", "--format", "coco-panoptic", *paths],
        "convert": ["data", "convert", "--from", "coco-panoptic", *paths, "--to", "coco-panoptic", "--output", output],
    }


@pytest.mark.parametrize("command", ["evaluate", "check", "convert"])
@pytest.mark.parametrize("form", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "repeated keys"])
def test_the_result_is_that_of_plain_json(
    form: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of repeated keys the last counts, as for Python and pycocotools."""
    results = []
    for name in ("plain", "odd"):
        data = panoptic(tmp_path / name)
        text = data.json_path.read_text()
        if name == "odd" and form == "repeated keys":
            text = text.replace('"image_id": 0', '"image_id": 5, "image_id": 0', 1)
            data.json_path.write_text('{"images": [], "annotations": 7, ' + text[1:])
        elif name == "odd":
            data.json_path.write_bytes(text.encode(form))
        code = main([str(word) for word in list_commands(data, tmp_path / name / "out")[command]])
        captured = capsys.readouterr()
        written = [path.read_bytes() for path in sorted((tmp_path / name / "out").rglob("*.*"))]
        results.append((code, captured.out.replace(f"/{name}", ""), captured.err.replace(f"/{name}", ""), written))
    assert results[0] == results[1]
    assert results[0][0] == 0


@pytest.mark.parametrize("command", ["evaluate", "check", "convert"])
@pytest.mark.parametrize("place", ["whole", "open", "inside"])
def test_deep_nesting_is_one_line(place: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = panoptic(tmp_path / "data")
    if place == "inside":
        deep = '{"a":' * DEEP + "1" + "}" * DEEP
        data.json_path.write_text(f'{{"info": {deep}, ' + data.json_path.read_text()[1:])
    else:
        data.json_path.write_text("[" * DEEP + ("]" * DEEP if place == "whole" else ""))
    assert main([str(word) for word in list_commands(data, tmp_path / "out")[command]]) == 1
    captured = capsys.readouterr()
    (line,) = (line for line in (captured.out + captured.err).splitlines() if "panoptic.json" in line)
    assert "expected JSON, got lists or objects nested too deeply" in line
    assert "Traceback" not in captured.err
