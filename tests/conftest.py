"""Fixtures of all tests: toy data, generated once per run. This module does not import torch or Detectron2."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from segkit.data.toy import dataset as toy
from segkit.utils import plugins

# No test is timed: the first call of a compiled function takes a second. With CI set, examples are the same in every
# run, so that a failure on CI can be repeated anywhere by CI=1.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve toy scenes in COCO panoptic format. Tests that change files use `toy_copy`."""
    folder = tmp_path_factory.mktemp("toy") / "scenes"
    toy.write_dataset(folder, images=12, seed=5)
    return folder


@pytest.fixture
def toy_copy(toy_folder: Path, tmp_path: Path) -> Path:
    """A copy of the same scenes, which the test may change."""
    return Path(shutil.copytree(toy_folder, tmp_path / "scenes"))


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget plugins before and after a test."""
    monkeypatch.setattr(plugins, "_plugins", {})
    monkeypatch.delenv(plugins.ENVIRONMENT, raising=False)


@pytest.fixture(autouse=True)
def _remove_log_handlers() -> Iterator[None]:
    """Detectron2's loggers keep writing to the stdout that they were made with, which pytest closes after a test.

    They also keep records from pytest's handler, whose format a training may have changed.
    """
    yield
    detectron2_logger = sys.modules.get("detectron2.utils.logger")
    if detectron2_logger is None:
        return
    detectron2_logger.setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "segkit"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
            handler.setFormatter(getattr(handler.formatter, "_formatter", handler.formatter))
            handler.filters.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
