"""The wheel: what it holds and says about itself."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from segkit.utils.config_files import RECIPES, list_recipes
from tests.helpers.wheels import ROOT, build_wheel

pytest.importorskip("setuptools", reason="builds a wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def list_files(folder: Path) -> set[str]:
    """The paths of all files relative to the folder, without Python's caches."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_package_and_the_recipes(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {f"segkit/{name}" for name in list_files(ROOT / "segkit")}
    assert names == package | {f"segkit/configs/{name}" for name in list_files(RECIPES)}


def test_the_recipes_are_found_by_an_installed_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=True).stdout

    listed = [line.split()[0] for line in run("-m", "segkit", "configs").splitlines()]
    assert listed == [*list_recipes()]
    files = "from importlib.resources import files; print(files('segkit.configs') / 'coco')"
    assert run("-c", files) == f"{tmp_path / 'site/segkit/configs/coco'}\n"
    assert run("-m", "segkit", "configs", "--copy", listed[0]).strip() == f"{Path(listed[0]).name}.yaml"
