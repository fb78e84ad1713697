"""`segkit data view`: what its page and its PNG show of a dataset."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats import png

SIDE = 64


def write_label_maps(folder: Path, labelled: list[bool], background: int = 0) -> Path:
    """Grey images with an 8 x 8 object in those that are labelled; the last format that has no void."""
    for number, has_object in enumerate(labelled):
        label = np.full((SIDE, SIDE), background, dtype=np.uint8)
        label[16:24, 16:24] = 1 if has_object else background
        png.write(folder / "images" / f"{number}.png", np.full((SIDE, SIDE, 3), 100, dtype=np.uint8))
        png.write_labels(folder / "labels" / f"{number}.png", label)
    return folder


def view(folder: Path, output: Path, *options: str, format: str = "instance-maps") -> int:
    return main(["data", "view", "--format", format, "--root", str(folder), "--output", str(output), *options])


def read_images(page: Path) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page.read_text())
    return [cv2.imdecode(np.frombuffer(base64.b64decode(e), np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for e in encoded]


def test_the_page_has_image_and_overlay_side_by_side_with_a_legend(tmp_path: Path) -> None:
    folder = write_label_maps(tmp_path / "data", [True])
    assert view(folder, tmp_path / "view.html", "--set", "thing=nucleus") == 0
    page = (tmp_path / "view.html").read_text()
    assert page.count('<div class="pair">') == 1
    assert re.search(r"</span>nucleus<span[^>]*>1</span>", page)
    image, overlay = read_images(tmp_path / "view.html")
    assert image.shape == overlay.shape == (12 * SIDE, 12 * SIDE, 3)  # 768 // 64
    changed = (np.abs(overlay.astype(int) - image) > 30).any(axis=2)
    rows, columns = np.nonzero(changed)
    margin = 50  # pixels of the name beside the object
    assert rows.min() >= 16 * 12 - margin
    assert columns.max() < 24 * 12 + margin
    assert changed[20 * 12, 20 * 12]


def test_slices_without_labels_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_label_maps(tmp_path / "data", [False, True, False, False])
    assert view(folder, tmp_path / "view.html", "--count", "1") == 0
    note = "2 images without a label are left out; --image shows them"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "view.html").read_text()
    assert len(read_images(tmp_path / "view.html")) == 2
    assert view(folder, tmp_path / "view.html", "--image", "0", "3") == 0
    assert len(read_images(tmp_path / "view.html")) == 4


def test_void_is_hatched_only_where_the_labels_are_complete(tmp_path: Path) -> None:
    folder = write_label_maps(tmp_path / "data", [True], background=255)
    (folder / "classes.json").write_text('["sky", "grass"]')
    assert view(folder, tmp_path / "void.html", format="semantic-maps") == 0
    image, overlay = read_images(tmp_path / "void.html")
    assert (overlay[:100] < 70).all()  # grey of 100 * 0.6 and 100 * 0.4
    write_label_maps(tmp_path / "data", [True])
    assert view(folder, tmp_path / "plain.html", "--set", "background=null") == 0
    image, overlay = read_images(tmp_path / "plain.html")
    assert (np.abs(overlay[:100].astype(int) - image[:100]) < 10).all()


def test_options_of_the_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_label_maps(tmp_path / "data", [True])
    drawings = []
    for options in ([], ["--no-names"], ["--no-names", "--alpha", "1"]):
        assert view(folder, tmp_path / "view.png", *options) == 0
        drawings.append(cv2.imread(str(tmp_path / "view.png")))
    assert (drawings[0] != drawings[1]).any()
    assert (drawings[1] != drawings[2]).any()
    for value in ("2", "-0.1", "nan", "half"):
        assert view(folder, tmp_path / "no.png", "--alpha", value) == 2
        assert f"expected a number from 0 to 1, got {value!r}" in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()
