"""What all commands share: names that are misspelt, and the format `auto`."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli.main import main
from tests.helpers.one_image import write_panoptic


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("data chek", "did you mean 'check'?"),
        ("data check --formt voc --root x", "did you mean '--format' for --formt?"),
        ("data stats --format voc --rot x", "unrecognized arguments: --rot x; did you mean '--root' for --rot?"),
        ("data stats --format voc --root x --spilt=val", "did you mean '--split' for --spilt=val?"),
        ("evaluate panoptic --gt a --pred b --mode corected", "did you mean 'corrected'?"),
        ("data check --format vox --root x", "unknown format 'vox'; did you mean 'voc'?"),
        ("data convert --from voc --root x --to yol --output y", "unknown format 'yol'; did you mean 'yolo'?"),
    ],
)
def test_unknown_names_get_a_suggestion(command: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) in (1, 2)
    assert hint.replace("=val", "") in capsys.readouterr().err.splitlines()[-1]


def test_nothing_similar_is_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", "--format", "voc", "--zzz", "x"]) == 2
    assert capsys.readouterr().err.endswith("unrecognized arguments: --zzz x\n")


def test_the_format_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panoptic(tmp_path)
    line = "format: coco-panoptic (p.json)\n"
    dataset = ["--format", "auto", "--root", str(tmp_path)]
    assert main(["data", "stats", *dataset]) == 0
    assert capsys.readouterr().out.startswith(line)
    assert main(["data", "check", *dataset]) == 0
    assert capsys.readouterr().out.startswith(line)
    assert main(["data", "view", *dataset, "--output", f"{tmp_path}/v.png"]) == 0
    assert capsys.readouterr().out.startswith(line)
    convert = ["data", "convert", "--from", "auto", "--json", f"{tmp_path}/p.json", "--to", "yolo"]
    assert main([*convert, "--output", str(tmp_path.parent / "yolo")]) == 0
    assert capsys.readouterr().out.startswith(line)
    assert main(["data", "stats", "--format", "auto", "--root", str(tmp_path.parent / "yolo")]) == 0
    assert capsys.readouterr().out.startswith("format: yolo (data.yaml)\n")
    assert main(["data", "check", "--format", "auto", "--root", f"{tmp_path}/images"]) == 2
    assert "no format fits" in capsys.readouterr().err
