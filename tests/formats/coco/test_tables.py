from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segkit.formats.coco import read_images
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import MAX_DEPTH, Location, all_finite, check_inside, other_keys, split_writable_keys
from segkit.utils.text import abbreviate


def test_text_of_locations() -> None:
    assert str(Location(Path("a.json"))) == "a.json"
    assert str(Location(Path("a.json"), "x")) == "a.json, image 'x'"
    assert f"{Location(Path('a.json'), 0, 'segment', 7)}" == "a.json, image 0, segment 7"


@given(st.lists(st.one_of(st.integers(-9, 9), st.floats(width=32))))
def test_all_finite_finds_every_nan_and_infinity(values: list[float]) -> None:
    assert all_finite(values) == all(abs(value) < float("inf") for value in values)


@pytest.mark.parametrize("values", [[True], ["1"], [None], [[1]], [10**400], [1, -(10**400)], [2, 1e301]])
def test_all_finite_is_false_for_other_types_and_large_numbers(values: list[object]) -> None:
    assert not all_finite(values)


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "./a.png", "a//b.png", "..a.png", "a..b/c.png", "ü b.png"])
def test_names_inside_the_folder_are_accepted(tmp_path: Path, name: str) -> None:
    check_inside(name, "file_name", "here")
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
    (file_path,) = (p for p in (tmp_path / "folder").rglob("*") if p.is_file())
    assert file_path.read_text() == name


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/..", "a/../b", "..\\a", "\\a", "c:a", "C:/a", "a/", "a\0"])
def test_names_outside_the_folder_raise_a_dataset_error(name: str) -> None:
    with pytest.raises(DatasetError, match="here: expected `file_name` to be a path inside its folder"):
        check_inside(name, "file_name", "here")


@pytest.mark.parametrize("name", [3, None, True, ["a"], Path("a")])
def test_names_that_are_no_text_raise_a_dataset_error(name: object) -> None:
    with pytest.raises(DatasetError, match="here: expected `split` to be a path inside its folder, got"):
        check_inside(name, "split", "here")


def test_images_larger_than_pillow_opens_raise_a_dataset_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    entry = {"id": 1, "file_name": "a.png", "height": 10, "width": 10}
    assert read_images({"images": [entry]}, Path("a.json")) == {1: entry}
    with pytest.raises(DatasetError, match=r"a\.json, image 1: expected at most 100 pixels, got 10 x 11 = 110; cut"):
        read_images({"images": [{**entry, "width": 11}]}, Path("a.json"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_images({"images": [{**entry, "width": 11}]}, Path("a.json"))


def test_values_that_json_cannot_hold_are_split_off() -> None:
    nested: object = 1
    for _ in range(MAX_DEPTH):
        nested = [nested]
    writable = {"a": 1, "b": [1.5, {"c": None}], "nested": nested, "text": "NaN"}
    not_writable = {"nan": float("nan"), "inf": {"x": [float("-inf")]}, "deep": {"x": nested}}
    assert split_writable_keys({**not_writable, **writable}) == (writable, ["nan", "inf", "deep"])
    assert other_keys({"a": 1, "b": 2, "c": 3}, ("b",)) == {"a": 1, "c": 3}


def test_abbreviate() -> None:
    assert abbreviate([]) == ""
    assert abbreviate([1, "a"]) == "1, 'a'"
    assert abbreviate(range(7)) == "0, 1, 2, 3, 4 and 2 more"
