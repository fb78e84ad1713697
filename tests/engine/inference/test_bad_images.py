"""`segkit predict` on a folder of every kind of image: each has the right result or one line, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from tests.engine.inference import CONFIG

SIZE_WH = (48, 36)
SMALL = ["--opts", "INPUT.MIN_SIZE_TEST", "36"]


def run(weights: Path, output: Path, *words: Any) -> int:
    given = ["predict", "--config-file", CONFIG, "--weights", weights, "--output", output, *words, *SMALL]
    return main([*map(str, given)])


def write_kinds(folder: Path) -> dict[str, tuple[int, int]]:
    """The name and the size (width, height) of each image that can be read; three cannot."""
    image = Image.fromarray(toy.draw_scene(0, 0, SIZE_WH[::-1])[0])
    (folder / "same").mkdir(parents=True)
    for name, mode in {"grey.png": "L", "alpha.png": "RGBA", "palette.png": "P", "bits.png": "1"}.items():
        image.convert(mode).save(folder / name)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6  # the top is on the right: width and height change places
    image.save(folder / "turned.jpg", exif=exif)
    image.crop((0, 0, 1, 1)).save(folder / "dot.png")
    for name in ("a b ü 细.png", "same/x.png", "same/x.jpg"):
        image.save(folder / name)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "cmyk.jpg").read_bytes()[:300])
    sizes = dict.fromkeys(("grey.png", "alpha.png", "palette.png", "bits.png", "cmyk.jpg", "deep.png"), SIZE_WH)
    sizes |= dict.fromkeys(("a b ü 细.png", "same/x.png", "same/x.jpg"), SIZE_WH)
    return {**sizes, "turned.jpg": SIZE_WH[::-1], "dot.png": (1, 1)}


def test_every_kind_of_image(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes, out = write_kinds(tmp_path / "in"), tmp_path / "out"
    assert run(weights, out, "--input", tmp_path / "in") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "3 of 14 images cannot be read" in lines[-1]
    for name in ("cut.jpg", "empty.png", "text.png"):
        assert sum(name in line for line in lines) == 1
    assert not any("Traceback" in line for line in lines)
    content = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))
    assert {entry["file_name"]: (entry["width"], entry["height"]) for entry in content["images"]} == sizes
    names = {entry["id"]: entry["file_name"] for entry in content["images"]}
    pngs = {names[entry["image_id"]]: entry["file_name"] for entry in content["annotations"]}
    assert {pngs["same/x.png"], pngs["same/x.jpg"]} == {"same/x.png", "same/x_2.png"}
    for name, size_wh in sizes.items():
        for folder in ("panoptic", "overlays"):
            assert Image.open(out / folder / pngs[name]).size == size_wh


def test_names_that_lead_out_of_the_folder_are_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", SIZE_WH).save(tmp_path / "x.png")
    entry = {"id": 1, "file_name": "../x.png", "width": SIZE_WH[0], "height": SIZE_WH[1]}
    (tmp_path / "list.json").write_text(json.dumps({"images": [entry]}))
    assert run(weights, tmp_path / "out", "--input", tmp_path / "in", "--images-json", tmp_path / "list.json") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "../x.png" in line
    assert not (tmp_path / "out").exists()


def test_listed_images_of_another_size_are_reported(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    entries = []
    for image_id, (name, extra_px) in enumerate((("right.png", 0), ("wrong.png", 1))):
        Image.new("RGB", SIZE_WH).save(tmp_path / "in" / name)
        width, height = SIZE_WH
        entries.append({"id": image_id, "file_name": name, "width": width + extra_px, "height": height})
    (tmp_path / "list.json").write_text(json.dumps({"images": entries}))
    out = tmp_path / "out"
    assert run(weights, out, "--input", tmp_path / "in", "--images-json", tmp_path / "list.json") == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert "wrong.png" in first
    assert f"the list says {SIZE_WH[1]} x {SIZE_WH[0] + 1} pixels" in first
    content = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["images"]] == ["right.png"]
