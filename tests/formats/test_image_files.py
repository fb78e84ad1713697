from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import segkit.formats
from segkit.curation.findings import RULES
from segkit.formats.image_files import (
    PICTURE_CASES,
    check_sizes,
    files_below,
    new_stem,
    picture_in,
    stem,
    unused_pictures,
)
from segkit.formats.source import SourceImage
from segkit.structures import DatasetError

TELLING = ("voc", "voc_labels", "instance_maps", "labelme", "labelme_files", "image_files", "predictions_rows")
CODE = re.compile(r'(?:tell|tell_each|_tell_alone)\(\s*"([a-z-]+)"|code = "([a-z-]+)"(?: if .* else "([a-z-]+)")?')


@pytest.mark.parametrize("module", TELLING)
def test_every_code_is_a_rule(module: str) -> None:
    text = (Path(segkit.formats.__file__).parent / f"{module}.py").read_text()
    literals = set(
        re.findall(r'"((?:[a-z]+-)+(?:missing|unreadable|differs|outside|twice|unknown|kind|annotation))"', text)
    )
    codes = {code for match in CODE.findall(text) for code in match if code}
    assert codes | literals
    assert codes | literals <= RULES.keys()


def test_files_are_found_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a.png", ".hidden/c.png", "a/.d.png", "Z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop").symlink_to("loop")
    assert files_below(tmp_path, "") == ["Z.txt", "a.png", "a/z.png", "b.png", "loop"]
    for name in ("a.png", "x" * 5000, "a\0"):
        with pytest.raises(DatasetError, match="no such folder; look elsewhere"):
            files_below(tmp_path / name, "look elsewhere")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=f"{tmp_path}: the folder cannot be listed: Permission denied"):
        files_below(tmp_path, "")


def test_stems_are_taken_once(tmp_path: Path) -> None:
    assert [stem(name) for name in ("x.jpg", "a/x.y.png", "./a//x", "a.b/c")] == ["x", "a/x.y", "a/x", "a.b/c"]
    image = SourceImage(7, "a/x.jpg", (1, 1))
    assert new_stem(image, {"x"}, tmp_path) == "a/x"
    assert picture_in(tmp_path, image) == tmp_path / "a/x.jpg"
    with pytest.raises(DatasetError, match="image 7: an image named a/x was added before; rename the image"):
        new_stem(image, {"a/x"}, tmp_path)
    for name in ("../x.jpg", "/x.jpg", "a/", ""):
        for work in (lambda one: new_stem(one, (), tmp_path), lambda one: picture_in(tmp_path, one)):
            with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
                work(SourceImage(7, name, (1, 1)))


def test_names_that_readers_pass_over_are_refused(tmp_path: Path) -> None:
    """251 letters and ".json" are 256 bytes, of which file systems hold 255; a letter with an accent has two."""
    for name in (".h.png", ".d/a.png", "a/.h", "a\\b.png"):
        image = SourceImage(7, name, (1, 1))
        assert picture_in(tmp_path, image) == tmp_path / name
        for work in (lambda one: new_stem(one, (), tmp_path), lambda one: picture_in(tmp_path, one, PICTURE_CASES)):
            with pytest.raises(
                DatasetError, match="image 7: expected a file_name without hidden parts and backslashes"
            ):
                work(image)
    for name in ("x" * 251 + ".png", "d/" + "\u00e9" * 126):
        with pytest.raises(DatasetError, match=r"image 7: expected names of at most 255 bytes, got 25[67] "):
            new_stem(SourceImage(7, name, (1, 1)), (), tmp_path)
    assert new_stem(SourceImage(7, "d/" + "\u00e9" * 125, (1, 1)), (), tmp_path) == "d/" + "\u00e9" * 125


def test_pictures_that_a_layout_does_not_look_for_become_pngs(tmp_path: Path) -> None:
    names = {"d/a.jpg": "d/a.jpg", "a.JPG": "a.JPG", "a.Jpg": "a.png", "a.gif": "a.png", "d.x/a": "d.x/a.png"}
    for name, expected in names.items():
        assert picture_in(tmp_path, SourceImage(7, name, (1, 1)), PICTURE_CASES) == tmp_path / expected


def test_pictures_that_are_unused(tmp_path: Path) -> None:
    for name in ("a.png", "d/b.TIF", ".c.png", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert unused_pictures(tmp_path, {"a.png"}, "are left") == (f"{tmp_path}: 1 are left: 'd/b.TIF'",)
    assert unused_pictures(tmp_path, {"a.png", "d/b.TIF"}, "are left") == ()
    assert unused_pictures(tmp_path / "x", (), "are left") == ()


def test_sizes_that_differ_are_all_named() -> None:
    picture, one, other = Path("p.jpg"), Path("c.png"), Path("o.png")
    check_sizes(picture, (2, 3), {one: (2, 3), other: (2, 3)})
    check_sizes(picture, (2, 3), {})
    message = r"c\.png and o\.png: expected 2 x 3 pixels .* as p\.jpg has, got 2 x 3 and 3 x 2"
    with pytest.raises(DatasetError, match=message):
        check_sizes(picture, (2, 3), {one: (2, 3), other: (3, 2)})
