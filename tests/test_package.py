"""The wheel: what it holds and says about itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import segkit
from segkit.engine.environment import load_requirements
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


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_metadata_say_what_an_index_shows(wheel: Path) -> None:
    metadata = read_metadata(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("segkit", segkit.__version__)
    for key in ("Summary", "Author", "License"):
        assert metadata[key], key
    addresses = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert {"Documentation", "Changelog", "Issues"} <= set(addresses)
    assert all(address.startswith("https://") for address in addresses.values())
    requirements = load_requirements()
    minors = [minor for minor in range(20) if f"Programming Language :: Python :: 3.{minor}" in classifiers(metadata)]
    assert requirements["python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert minors == [*range(minors[0], minors[-1] + 1)]
    assert "License :: OSI Approved :: Apache Software License" in classifiers(metadata)
    assert set(metadata.get_all("Provides-Extra", [])) == set(requirements["extras"])


def classifiers(metadata: Message) -> list[str]:
    return metadata.get_all("Classifier", [])


def test_the_licence_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("LICENSE"))
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_links_of_the_description_are_absolute_and_have_targets(wheel: Path) -> None:
    metadata = read_metadata(wheel)
    description = metadata.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)\s]*)\)", description)
    assert len(targets) > 10
    for target in targets:
        match = re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(?:blob|raw)/main/([^#]+)(?:#.*)?", target)
        assert match, target
        assert (ROOT / match[1]).exists(), target
    assert "/raw/main/docs/images/demo.png)" in description


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
