"""What every test can ask for: toy data, made once per run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.utils.logger import setup_logger

from segkit.data.toy import dataset as toy


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


@pytest.fixture(autouse=True)
def _no_left_over_log_handlers() -> Iterator[None]:
    """Detectron2's loggers keep writing to the stdout that they were made with, which is pytest's of one test."""
    yield
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "segkit"):
        for handler in [*(logger := logging.getLogger(name)).handlers]:
            logger.removeHandler(handler)
            handler.close()
