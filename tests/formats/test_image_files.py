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
STRING_CONSTANTS = {
    target.id: node.value.value
    for module in MODULES
    for node in module.body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    for target in node.targets
    if isinstance(target, ast.Name)
}


def get_name(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def is_code_name(name: str) -> bool:
    return name == "code" or name.startswith("code_")


def find_codes_passed_to_on_issue() -> Iterator[ast.expr]:
    """Yields the expressions that are passed to `on_issue` as a code.

    They are arguments of `on_issue`, of a partial of it, or of a function of these modules with such a parameter,
    and values assigned to a name of a code.
    """
    code_positions = {f.name: i for f in FUNCTIONS for i, a in enumerate(f.args.args) if is_code_name(a.arg)}
    for node in NODES:
        if isinstance(node, ast.Call):
            name, n_arguments = get_name(node.func), len(node.args)
            if name == "on_issue" and n_arguments == 2:
                yield node.args[0]
            elif name == "partial" and get_name(node.args[0]) == "on_issue":
                yield node.args[1]
            elif name in code_positions and n_arguments > code_positions[name]:
                yield node.args[code_positions[name]]
            yield from (keyword.value for keyword in node.keywords if is_code_name(keyword.arg or ""))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                yield from (value for name, value in zip(names, values, strict=False) if is_code_name(get_name(name)))


def get_codes(expression: ast.expr) -> set[str]:
    """Returns the codes that an expression may be; none for a variable whose values are examined elsewhere."""
    if isinstance(expression, ast.Constant):
        return {expression.value}
    if isinstance(expression, ast.Name) and expression.id in STRING_CONSTANTS:
        return {STRING_CONSTANTS[expression.id]}
    if isinstance(expression, ast.IfExp):
        return get_codes(expression.body) | get_codes(expression.orelse)
    assert is_code_name(get_name(expression)), f"unknown issue code {ast.unparse(expression)!r}"
    return set()


def test_every_issue_code_has_a_rule() -> None:
    codes = set[str]().union(*map(get_codes, find_codes_passed_to_on_issue()))
    assert codes - RULES.keys() == set()
    # One code of each of these kinds of expressions.
    assert codes > {"json-kind", "annotation-twice", "mask-invalid", "number-not-finite", "key-missing", "png-missing"}


def test_files_are_listed_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a.png", ".hidden/c.png", "a/.d.png", "Z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop").symlink_to("loop")
    assert files_below(tmp_path, "") == ["Z.txt", "a.png", "a/z.png", "b.png", "loop"]
    for name in ("a.png", "x" * 5000, "a\0"):
        with pytest.raises(DatasetError, match="no such folder; look elsewhere"):
            files_below(tmp_path / name, "look elsewhere")


def test_a_folder_that_cannot_be_listed_raises_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_issue(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", raise_issue)
    with pytest.raises(DatasetError, match=f"{tmp_path}: the folder cannot be listed: Permission denied"):
        files_below(tmp_path, "")


def test_repeated_stems_and_paths_outside_the_folder_raise_a_dataset_error(tmp_path: Path) -> None:
    assert [strip_suffix(name) for name in ("x.jpg", "a/x.y.png", "./a//x", "a.b/c")] == ["x", "a/x.y", "a/x", "a.b/c"]
    image = DatasetImage(7, "a/x.jpg", (1, 1))
    assert get_unique_stem(image, {"x"}, tmp_path) == "a/x"
    assert build_image_path(tmp_path, image) == tmp_path / "a/x.jpg"
    with pytest.raises(DatasetError, match="image 7: an image named a/x was added before; rename the image"):
        get_unique_stem(image, {"a/x"}, tmp_path)
    for name in ("../x.jpg", "/x.jpg", "a/", ""):
        for build in (
            lambda image_7: get_unique_stem(image_7, (), tmp_path),
            lambda image_7: build_image_path(tmp_path, image_7),
        ):
            with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
                build(DatasetImage(7, name, (1, 1)))


def test_names_that_readers_skip_raise_a_dataset_error(tmp_path: Path) -> None:
    """251 letters and ".json" are 256 bytes, of which file systems hold 255; a letter with an accent has two."""
    for name in (".h.png", ".d/a.png", "a/.h", "a\\b.png"):
        image = DatasetImage(7, name, (1, 1))
        assert build_image_path(tmp_path, image) == tmp_path / name
        for build in (
            lambda image_7: get_unique_stem(image_7, (), tmp_path),
            lambda image_7: build_image_path(tmp_path, image_7, IMAGE_SUFFIX_CASES),
        ):
            with pytest.raises(
                DatasetError, match="image 7: expected a file_name without hidden parts and backslashes"
            ):
                build(image)
    for name in ("x" * 251 + ".png", "d/" + "\u00e9" * 126):
        with pytest.raises(DatasetError, match=r"image 7: expected names of at most 255 bytes, got 25[67] "):
            get_unique_stem(DatasetImage(7, name, (1, 1)), (), tmp_path)
    assert get_unique_stem(DatasetImage(7, "d/" + "\u00e9" * 125, (1, 1)), (), tmp_path) == "d/" + "\u00e9" * 125


def test_images_of_other_suffixes_become_pngs(tmp_path: Path) -> None:
    names = {"d/a.jpg": "d/a.jpg", "a.JPG": "a.JPG", "a.Jpg": "a.png", "a.gif": "a.png", "d.x/a": "d.x/a.png"}
    for name, expected in names.items():
        assert build_image_path(tmp_path, DatasetImage(7, name, (1, 1)), IMAGE_SUFFIX_CASES) == tmp_path / expected


def test_unused_images_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "d/b.TIF", ".c.png", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert describe_unused_images(tmp_path, {"a.png"}, "are left") == (f"{tmp_path}: 1 are left: 'd/b.TIF'",)
    assert describe_unused_images(tmp_path, {"a.png", "d/b.TIF"}, "are left") == ()
    assert describe_unused_images(tmp_path / "x", (), "are left") == ()


def test_the_error_names_all_sizes_that_differ() -> None:
    image, classes, objects = Path("p.jpg"), Path("c.png"), Path("o.png")
    check_sizes(image, (2, 3), {classes: (2, 3), objects: (2, 3)})
    check_sizes(image, (2, 3), {})
    message = r"c\.png and o\.png: expected 2 x 3 pixels .* as p\.jpg has, got 2 x 3 and 3 x 2"
    with pytest.raises(DatasetError, match=message):
        check_sizes(image, (2, 3), {classes: (2, 3), objects: (3, 2)})
