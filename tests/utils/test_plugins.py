"""Plugins: how they are found, what their errors say, and that only the user imports them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segkit.utils import plugins
from segkit.utils.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_plugins")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with one plugin; modules that a test imports are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    (tmp_path / "t_plugin.py").write_text("import t_neighbour\nCALLS = []\n\ndef add_config(cfg):\n    cfg.append(1)\n")
    (tmp_path / "t_neighbour.py").write_text("")
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.mark.parametrize("source", ["t_plugin", "t_plugin.py", "./t_plugin.py"])
def test_a_module_of_the_working_directory_and_a_file_are_the_same_plugin(source: str, folder: Path) -> None:
    plugins.load_plugins([source])
    first = sys.modules["t_plugin"]
    plugins.load_plugins([source, "t_plugin"])
    assert sys.modules["t_plugin"] is first
    assert plugins.get_plugin_names() == ["t_plugin"]
    plugins.require_plugins(["t_plugin"], "config")
    keys: list[int] = []
    plugins.add_plugin_keys(keys)
    assert keys == [1]


def test_a_file_of_another_folder_finds_its_neighbours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    plugins.load_plugins([str(folder / "t_plugin.py")])
    assert plugins.get_plugin_sources() == [str(folder / "t_plugin.py")]


@pytest.mark.parametrize("separator", [",", os.pathsep, f" {os.pathsep} "])
def test_the_environment_variable_lists_plugins(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKIT_PLUGINS", separator.join(["one", "folder/two.py"]))
    assert plugins.get_environment_plugins() == ["one", "folder/two.py"]
    monkeypatch.delenv("SEGKIT_PLUGINS")
    assert plugins.get_environment_plugins() == []


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("t_nowhere", None, "there is no plugin 't_nowhere'; name a module of the working directory"),
        ("t_nowhere.py", None, r"t_nowhere\.py: expected a plugin in a \.py file, got no such file"),
        ("json.py", "x = 1\n", r"json\.py: the name 'json' is taken by another module .*; rename the file"),
        ("statistics.py", "x = 1\n", "the name 'statistics' is taken by another module"),
        ("sys.py", "x = 1\n", r"the name 'sys' is taken by another module \(built into Python\)"),
        ("a.b.py", "x = 1\n", "expected a file name that is a module's name"),
        (
            "t_bad.py",
            "x = 1\nimport t_absent\n",
            r"'t_bad' fails: ModuleNotFoundError: .*'t_absent' .*line 2",
        ),
        ("t_bad", "x = 1\n\n1 / 0\n", r"'t_bad' fails: ZeroDivisionError: division by zero \(.*t_bad\.py, line 3\)"),
        ("t_bad", "def f(:\n", r"'t_bad' fails: SyntaxError: .*t_bad\.py, line 1"),
        ("t_bad", "raise SystemExit('no')\n", "'t_bad' fails: SystemExit: no"),
    ],
)
def test_errors_are_one_line(source: str, text: str | None, message: str, folder: Path) -> None:
    if text is not None:
        (folder / f"{source.removesuffix('.py')}.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        plugins.load_plugins([source])
    assert "\n" not in str(error.value)
    assert plugins.get_plugin_names() == []


def test_a_failing_hook_names_the_plugin(folder: Path) -> None:
    plugins.load_plugins(["t_plugin"])
    with pytest.raises(ConfigError, match="the plugin 't_plugin' fails: AttributeError"):
        plugins.add_plugin_keys(None)


def test_a_plugin_that_was_not_given_is_named_with_the_flag(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.yaml: needs the plugin t_plugin, .*add --plugin t_plugin .*SEGKIT_PLUGINS"
    ):
        plugins.require_plugins(["t_plugin"], "run.yaml")
    assert "t_plugin" not in sys.modules
    with pytest.raises(ConfigError, match="expected PLUGINS to be a list of names"):
        plugins.require_plugins("t_plugin", "run.yaml")
