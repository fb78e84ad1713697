"""Names of classes, files and images are shown by every command, and never obeyed by the terminal or a browser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from segkit.formats import png
from tests.helpers import saved_heads

# A color, a bell, a color by a C1 character, an override of the writing direction, a tag of HTML, and a further line.
HOSTILE = "\x1b[31m\x07\x9b32m\u202e<b>\nsegkit: forged"
CLASS = f"{HOSTILE}$x_{{$"  # and an unfinished formula of matplotlib
NOT_UTF8 = os.fsdecode(b"\xff\xfe")
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
COCO = "coco-panoptic --json panoptic.json --masks panoptic --images images"
PANOPTIC = "evaluate panoptic --gt panoptic.json --pred panoptic.json"
INSTANCES = "evaluate instances --gt instances.json --pred results.json"
FUSED = "--predictions heads/saved --gt heads/ground_truth.json"
CONVERT = f"data convert --from {COCO} --output"
UNKNOWN = "fuse draw --predictions heads/saved --images images --image unknown --output grid.png"
COMMANDS = [
    f"{PANOPTIC} --per-class --boundary --save-counts counts.npz",
    "compare counts.npz counts.npz --per-class",
    f"{INSTANCES} --per-class",
    "evaluate semantic --gt labels --pred labels --categories panoptic.json --per-class",
    f"data check --format {COCO}",
    f"data check --format {COCO} --fix repaired",
    f"data stats --format {COCO} --output stats",
    f"data view --format {COCO} --output page.html",
    f"data view --format {COCO} --output grid.png",
    f"{CONVERT} in_labelme --to labelme",
    f"{CONVERT} in_voc --to voc",
    f"{CONVERT} in_yolo --to yolo",
    f"fuse run {FUSED} --method heuristic --explain --output fused",
    f"fuse sweep {FUSED} --methods heuristic --set overlap_threshold=0.4 --per-class --output swept",
    UNKNOWN,
    "fuse priors --gt heads/ground_truth.json --output priors.json",
]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy scenes, results, label PNGs and head outputs; the working directory is their folder."""
    monkeypatch.chdir(toy.write_dataset(tmp_path / "toy", 2, 5))
    annotations = json.loads(Path("instances.json").read_text())["annotations"]
    write("results.json", [{**annotation, "score": 0.5} for annotation in annotations])
    png.write(Path("labels", f"{HOSTILE}.png"), np.ones((2, 2), np.uint8))
    saved_heads.write(Path("heads"), 2)
    return Path()


def write(path: str | Path, content: Any) -> None:
    Path(path).write_text(json.dumps(content))


def rename(in_files: str) -> None:
    """Put `in_files` into the names of images and their files, and CLASS into those of classes."""
    for path in (Path("panoptic.json"), Path("instances.json"), *Path("heads").rglob("*.json")):
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["name"] += CLASS
        for image in content["images"] if path.parent == Path() else ():
            name = image["file_name"]
            image["file_name"], image["id"] = f"{in_files}{name}", f"{HOSTILE}{image['id']}"
            if Path("images", name).exists():
                Path("images", name).rename(Path("images", f"{in_files}{name}"))
        for annotation in content.get("annotations", ()) if path.parent == Path() else ():
            annotation["image_id"] = f"{HOSTILE}{annotation['image_id']}"
        write(path, content)
    write("results.json", [r | {"image_id": f"{HOSTILE}{r['image_id']}"} for r in json.loads(read("results.json"))])


def read(path: str) -> str:
    return Path(path).read_text()


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command: its exit code and what the terminal shows, after checking that it obeys nothing."""
    code = main(command.split())
    printed, error = capsys.readouterr()
    shown = f"{printed}{error}"
    assert not OBEYED.search(shown), repr(shown)
    assert "\nsegkit: forged" not in shown, shown
    return code, shown


@pytest.mark.parametrize("in_files", [HOSTILE, NOT_UTF8], ids=["control characters", "not UTF-8"])
def test_names_are_shown_and_not_obeyed(dataset: Path, in_files: str, capsys: pytest.CaptureFixture[str]) -> None:
    rename(in_files)
    codes = {command: run(command, capsys)[0] for command in COMMANDS}
    assert {command for command, code in codes.items() if code} == {UNKNOWN, f"{CONVERT} in_voc --to voc"}
    page = read("page.html")
    assert "forged" in page
    assert "<b>" not in page
    assert not OBEYED.search(page)


def test_halves_of_surrogate_pairs_are_refused_in_a_line(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the names of classes and files, and in image ids."""
    rename(HOSTILE)
    for path in (Path("panoptic.json"), Path("instances.json"), *Path("heads").rglob("*.json")):
        path.write_text(read(str(path)).replace("forged", "forged\\ud800"))
    for command in COMMANDS:
        code, shown = run(command, capsys)
        assert code == 1, command
        assert "\\ud800" in shown or "counts.npz" in shown, command
