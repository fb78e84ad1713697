"""Config files: recipes by name, copies of them, and `_BASE_`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from segkit.utils import config_files
from segkit.utils.config_files import copy_recipe, find_config_file, list_recipes, read_config_file
from segkit.utils.errors import ConfigError

RECIPE = "coco/panoptic_rcnn_R50_FPN_3x"
MANY_BASES = {name: f"_BASE_: [{base}, {base}]" for name, base in zip("cdefghi", "defghij", strict=True)}
MANY_BASES["j"] = "A: 1"
ADDRESS = "https://example.org/configs/base.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**texts: str) -> None:
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")


def test_every_recipe_has_a_summary_and_is_read() -> None:
    recipes = list_recipes()
    assert RECIPE in recipes
    assert not [name for name in recipes if "Base-" in name]
    for name, summary in recipes.items():
        assert summary.endswith("."), name
        content = read_config_file(find_config_file(name))
        assert {"MODEL", "DATASETS"} <= set(content), name


@pytest.mark.parametrize("name", [RECIPE, f"{RECIPE}.yaml", f"configs/{RECIPE}.yaml"])
def test_a_recipe_is_found_in_any_folder(folder: Path, name: str) -> None:
    assert find_config_file(name) == config_files.RECIPES / f"{RECIPE}.yaml"


def test_a_file_comes_before_a_recipe(folder: Path) -> None:
    (folder / "coco").mkdir()
    write(**{RECIPE: "A: 1", "mine": "A: 2"})
    assert find_config_file(RECIPE) == Path(f"{RECIPE}.yaml")
    assert find_config_file("mine") == Path("mine.yaml")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("coco/panoptic_rcnn_R50_FPN_3", f"did you mean {RECIPE}\\?"),
        ("panoptic_rcnn_R50_FPN_3x", f"did you mean {RECIPE}\\?"),
        ("mask_rcnn_R50_FPN", r"did you mean cityscapes/mask_rcnn_R50_FPN or voc/mask_rcnn_R50_FPN\?"),
        ("mime.yaml", r"did you mean mine\.yaml\?"),
        ("quite/unknown", "recipe; `segkit configs` lists the recipes"),
    ],
)
def test_unknown_names_get_a_suggestion(folder: Path, name: str, remedy: str) -> None:
    write(mine="A: 2")
    with pytest.raises(
        ConfigError, match=f"{name}: no such config file or recipe; .*{remedy}" if "did" in remedy else remedy
    ):
        find_config_file(name)


@pytest.mark.parametrize("name", [*list_recipes()])
def test_a_copy_holds_what_the_recipe_holds_and_can_be_edited(folder: Path, name: str) -> None:
    copy_recipe(name, folder / "copy.yaml")
    content = read_config_file(Path("copy.yaml"))
    assert content == read_config_file(find_config_file(name))
    text = Path("copy.yaml").read_text(encoding="utf-8")
    Path("copy.yaml").write_text(f"{text}OUTPUT_DIR: edited\n", encoding="utf-8")
    assert read_config_file(Path("copy.yaml")) == {**content, "OUTPUT_DIR": "edited"}


def test_values_of_a_file_replace_those_of_its_bases(folder: Path) -> None:
    write(a="A: {x: 1, y: &y {z: 1}}\nB: *y\n", b="A: {y: {z: 2}}\nC: 3\n")
    write(c="_BASE_: [a.yaml, b]\nA: {w: 4}\nC: [5]\n")
    assert read_config_file(Path("c.yaml")) == {"A": {"x": 1, "y": {"z": 2}, "w": 4}, "B": {"z": 1}, "C": [5]}


def test_a_base_may_be_in_the_home_folder_and_the_name_of_a_recipe(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    write(home=f"_BASE_: {RECIPE}\nOUTPUT_DIR: home\n")
    (folder / "inner").mkdir()
    (folder / "inner/c.yaml").write_text("_BASE_: ~/home.yaml\n")
    expected = {**read_config_file(find_config_file(RECIPE)), "OUTPUT_DIR": "home"}
    assert read_config_file(folder / "inner/c.yaml") == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"c": "_BASE_: c.yaml"}, r"c\.yaml: the _BASE_ of a config leads back to it: c\.yaml -> c\.yaml"),
        ({"c": "_BASE_: ./b", "b": "_BASE_: [a, c]", "a": "A: 1"}, r"it: c\.yaml -> ./b\.yaml -> ./c\.yaml"),
        ({"c": "_BASE_: coco/Base-PanopticRCNN"}, r"c\.yaml: the _BASE_ .* did you mean coco/Base-PanopticRCNN-FPN\?"),
        ({"c": "_BASE_: {a: 1}"}, r"c\.yaml: expected _BASE_ to be a path or the name of a recipe, got \{'a': 1\}"),
        ({"c": "_BASE_: b\nA: {x: 1}", "b": "A: 1"}, r"c\.yaml: A is a mapping here and a value in the _BASE_"),
        ({"c": "- 1"}, r"c\.yaml: expected YAML of plain values, one mapping, got list"),
        ({"c": ""}, r"c\.yaml: expected YAML of plain values, one mapping, got NoneType"),
        ({"c": "[" * 3000}, r"c\.yaml: .*levels of nesting"),
        ({"c": "_BASE_: b", "b": "[" * 3000}, r"b\.yaml: .*levels of nesting"),
        ({"c": f"_BASE_: {ADDRESS}"}, r"c\.yaml: .* is not fetched; set SEGKIT_FETCH_CONFIGS=1 to fetch it, or sa"),
        (MANY_BASES, "at most 100 files"),
        ({"c": "#" * 10_000_001}, r"c\.yaml: expected a config of at most 10000000 bytes, got more"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(config_files, "urlopen", None)
    write(**texts)
    with pytest.raises(ConfigError, match=message) as raised:
        read_config_file(Path("c.yaml"))
    assert "\n" not in str(raised.value)


def test_an_address_is_fetched_if_the_user_asks_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {ADDRESS: b"_BASE_: other.yaml\nA: 1\n", ADDRESS.replace("base", "other"): b"A: 2\nB: 3\n"}
    opened: list[Any] = []

    def urlopen(address: str, timeout: float) -> io.BytesIO:
        opened.append(address)
        if address not in pages:
            raise OSError("HTTP Error 404: Not Found")
        return io.BytesIO(pages[address])

    monkeypatch.setattr(config_files, "urlopen", urlopen)
    write(c=f"_BASE_: {ADDRESS}\nC: 4\n")
    monkeypatch.setenv("SEGKIT_FETCH_CONFIGS", "1")
    assert read_config_file(Path("c.yaml")) == {"A": 1, "B": 3, "C": 4}
    assert opened == [*pages]
    pages[ADDRESS] = b"# " + bytes(config_files.MAX_BYTES)
    with pytest.raises(ConfigError, match="at most 10000000 bytes"):
        read_config_file(Path("c.yaml"))
    del pages[ADDRESS]
    with pytest.raises(ConfigError, match=f"{ADDRESS}: cannot be fetched: HTTP Error 404"):
        read_config_file(Path("c.yaml"))


def test_recipes_are_read_as_detectron2_reads_them() -> None:
    config = pytest.importorskip("detectron2.config", reason="compares with Detectron2")
    for name in list_recipes():
        path = find_config_file(name)
        assert read_config_file(path) == config.CfgNode.load_yaml_with_base(os.fspath(path)), name


def test_a_copy_differs_in_the_line_of_its_base(folder: Path) -> None:
    """Comments and order stay."""
    copy_recipe(RECIPE, folder / "copy.yaml")
    lines = [path.read_text().splitlines() for path in (find_config_file(RECIPE), Path("copy.yaml"))]
    differing = [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
    assert [yaml.safe_load(new) for _, new in differing] == [{"_BASE_": "coco/Base-PanopticRCNN-FPN"}]
