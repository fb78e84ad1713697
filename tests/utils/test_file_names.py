"""Names of files in other spellings, in a folder that has `image.JPG`, `my photo é.png` (NFC) and `sub/Two.png`."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from segkit.utils import file_names
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames, describe_spelling, explain_missing, resolve_names
from segkit.utils.files import read_bytes

PHOTO = unicodedata.normalize("NFC", "my photo é.png")
DECOMPOSED = unicodedata.normalize("NFD", PHOTO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for name in ("image.JPG", PHOTO, "sub/Two.png", "a%20b.png"):
        (root / name).touch()
    (tmp_path / "secret.png").touch()
    return root


@pytest.mark.parametrize(
    ("name", "expected", "cause"),
    [
        ("image.JPG", "image.JPG", ""),
        ("image.jpg", "image.JPG", file_names.LETTER_CASE),
        ("sub\\Two.png", "sub/Two.png", file_names.BACKSLASHES),
        ("SUB\\two.PNG", "sub/Two.png", f"{file_names.BACKSLASHES}, {file_names.LETTER_CASE}"),
        ("my%20photo%20%C3%A9.png", PHOTO, file_names.ESCAPES),
        (DECOMPOSED, PHOTO, file_names.UNICODE_FORM),
        (DECOMPOSED.upper(), PHOTO, f"{file_names.UNICODE_FORM}, {file_names.LETTER_CASE}"),
        ("a b.png", "a%20b.png", file_names.ESCAPES),
        ("./sub/Two.png", "./sub/Two.png", ""),
    ],
)
def test_each_spelling_is_found_and_its_cause_named(folder: Path, name: str, expected: str, cause: str) -> None:
    assert FolderNames(folder).find(name) == expected
    assert resolve_names(folder, [name]) == [expected]
    assert describe_spelling(name, expected) == cause


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "..\\secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "sub/../../SECRET.png",
        "\0",
        "x" * 300,
    ],
)
def test_no_name_leads_out_of_the_folder(folder: Path, name: str) -> None:
    absolute = str(folder.parent / "secret.png")
    for outside in (name, absolute, absolute.upper()):
        assert FolderNames(folder).find(outside) is None
        assert FolderNames(folder).resolve(outside) == outside


def test_of_several_files_the_exact_name_and_then_the_letter_case_decide(folder: Path) -> None:
    (folder / "IMAGE.JPG").touch()
    (folder / PHOTO.upper()).touch()
    names = FolderNames(folder)
    assert names.find("IMAGE.JPG") == "IMAGE.JPG"
    assert names.find(DECOMPOSED) == PHOTO
    assert names.find("Image.jpg") is None
    assert names.explain("Image.jpg") == "is it IMAGE.JPG? The name is spelled in other letter case"


def test_missing_files_are_explained(folder: Path) -> None:
    names = FolderNames(folder)
    assert names.explain("images\\image.JPG") == "is it image.JPG, without images/?"
    assert names.explain("data/images/sub/two.png") == "is it sub/Two.png, without data/images/?"
    assert names.explain("other.png") == names.explain("sub") == ""
    path = folder / "sub" / "two.png"
    assert explain_missing(path) == " (is it Two.png? The name is spelled in other letter case)"
    assert (
        explain_missing(folder / "Sub" / "Two.png") == " (is it sub/Two.png? The name is spelled in other letter case)"
    )
    with pytest.raises(DatasetError, match=r"found nothing \(is it Two\.png\?"):
        read_bytes(path)
    assert FolderNames(folder / "none").explain("other.png") == ""
    assert FolderNames(folder / "none").find("other.png") is None
