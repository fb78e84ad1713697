"""What every test can ask for: toy data, made once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.data import toy


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve toy scenes in COCO panoptic layout; not to be changed: see `toy_copy`."""
    folder = tmp_path_factory.mktemp("toy") / "scenes"
    toy.write_dataset(folder, images=12, seed=5)
    return folder


@pytest.fixture
def toy_copy(toy_folder: Path, tmp_path: Path) -> Path:
    """The same scenes, to be broken."""
    import shutil

    return Path(shutil.copytree(toy_folder, tmp_path / "scenes"))
