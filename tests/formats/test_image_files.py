from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import segkit.formats
from segkit.curation.issues import RULES
from segkit.formats.base import DatasetImage
from segkit.formats.image_files import (
    IMAGE_SUFFIX_CASES,
    build_image_path,
    check_sizes,
    describe_unused_images,
    files_below,
    get_unique_stem,
    strip_suffix,
)
from segkit.utils.errors import DatasetError

MODULES = [ast.parse(path.read_text()) for path in Path(segkit.formats.__file__).parent.rglob("*.py")]
NODES = [node for module in MODULES for node in ast.walk(module)]
FUNCTIONS = [node for node in NODES if isinstance(node, ast.FunctionDef)]


def name_of(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def is_code(name: str) -> bool:
    return name == "code" or name.startswith("code_")


def messages() -> Iterator[ast.expr]:
    """What is given to a `on_issue` as its code: by a call of it, by a partial of it, by a call of a function of these
    modules that has such an argument; what is assigned to a name of a code, and what functions of codes return."""
    places = {f.name: i for f in FUNCTIONS for i, a in enumerate(f.args.args) if is_code(a.arg)}
    for node in NODES:
        if isinstance(node, ast.Call):
            name, n_given = name_of(node.func), len(node.args)
            if name == "on_issue" and n_given == 2:
                yield node.args[0]
            elif name == "partial" and name_of(node.args[0]) == "on_issue":
                yield node.args[1]
            elif name in places and n_given > places[name]:
                yield node.args[places[name]]
            yield from (keyword.value for keyword in node.keywords if is_code(keyword.arg or ""))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                yield from (value for one, value in zip(names, values, strict=False) if is_code(name_of(one)))
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("_code_of"):
            yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value)


def codes_in(given: ast.expr) -> set[str]:
    """The codes that an expression may be; none of a name or call of which `told` knows what it is."""
    if isinstance(given, ast.Constant):
        return {given.value}
    if isinstance(given, ast.IfExp):
        return codes_in(given.body) | codes_in(given.orelse)
    known = is_code(name_of(given)) or (isinstance(given, ast.Call) and name_of(given.func).startswith("_code_of"))
    assert known, f"what code is {ast.unparse(given)!r}?"
    return set()


def test_every_code_is_a_rule() -> None:
    codes = set[str]().union(*map(codes_in, messages()))
    assert codes - RULES.keys() == set()
    # One of each way in which a code is given.
    assert codes > {"json-kind", "annotation-twice", "mask-invalid", "number-not-finite", "key-missing", "png-missing"}


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
    def raise_issue(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", raise_issue)
    with pytest.raises(DatasetError, match=f"{tmp_path}: the folder cannot be listed: Permission denied"):
        files_below(tmp_path, "")


def test_stems_are_taken_once(tmp_path: Path) -> None:
    assert [strip_suffix(name) for name in ("x.jpg", "a/x.y.png", "./a//x", "a.b/c")] == ["x", "a/x.y", "a/x", "a.b/c"]
    image = DatasetImage(7, "a/x.jpg", (1, 1))
    assert get_unique_stem(image, {"x"}, tmp_path) == "a/x"
    assert build_image_path(tmp_path, image) == tmp_path / "a/x.jpg"
    with pytest.raises(DatasetError, match="image 7: an image named a/x was added before; rename the image"):
        get_unique_stem(image, {"a/x"}, tmp_path)
    for name in ("../x.jpg", "/x.jpg", "a/", ""):
        for work in (lambda one: get_unique_stem(one, (), tmp_path), lambda one: build_image_path(tmp_path, one)):
            with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
                work(DatasetImage(7, name, (1, 1)))


def test_names_that_readers_pass_over_are_refused(tmp_path: Path) -> None:
    """251 letters and ".json" are 256 bytes, of which file systems hold 255; a letter with an accent has two."""
    for name in (".h.png", ".d/a.png", "a/.h", "a\\b.png"):
        image = DatasetImage(7, name, (1, 1))
        assert build_image_path(tmp_path, image) == tmp_path / name
        for work in (
            lambda one: get_unique_stem(one, (), tmp_path),
            lambda one: build_image_path(tmp_path, one, IMAGE_SUFFIX_CASES),
        ):
            with pytest.raises(
                DatasetError, match="image 7: expected a file_name without hidden parts and backslashes"
            ):
                work(image)
    for name in ("x" * 251 + ".png", "d/" + "\u00e9" * 126):
        with pytest.raises(DatasetError, match=r"image 7: expected names of at most 255 bytes, got 25[67] "):
            get_unique_stem(DatasetImage(7, name, (1, 1)), (), tmp_path)
    assert get_unique_stem(DatasetImage(7, "d/" + "\u00e9" * 125, (1, 1)), (), tmp_path) == "d/" + "\u00e9" * 125


def test_images_that_a_format_does_not_look_for_become_pngs(tmp_path: Path) -> None:
    names = {"d/a.jpg": "d/a.jpg", "a.JPG": "a.JPG", "a.Jpg": "a.png", "a.gif": "a.png", "d.x/a": "d.x/a.png"}
    for name, expected in names.items():
        assert build_image_path(tmp_path, DatasetImage(7, name, (1, 1)), IMAGE_SUFFIX_CASES) == tmp_path / expected


def test_images_that_are_unused(tmp_path: Path) -> None:
    for name in ("a.png", "d/b.TIF", ".c.png", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert describe_unused_images(tmp_path, {"a.png"}, "are left") == (f"{tmp_path}: 1 are left: 'd/b.TIF'",)
    assert describe_unused_images(tmp_path, {"a.png", "d/b.TIF"}, "are left") == ()
    assert describe_unused_images(tmp_path / "x", (), "are left") == ()


def test_sizes_that_differ_are_all_named() -> None:
    image, one, other = Path("p.jpg"), Path("c.png"), Path("o.png")
    check_sizes(image, (2, 3), {one: (2, 3), other: (2, 3)})
    check_sizes(image, (2, 3), {})
    message = r"c\.png and o\.png: expected 2 x 3 pixels .* as p\.jpg has, got 2 x 3 and 3 x 2"
    with pytest.raises(DatasetError, match=message):
        check_sizes(image, (2, 3), {one: (2, 3), other: (3, 2)})
