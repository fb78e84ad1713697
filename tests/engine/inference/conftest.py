"""A model with random weights, shared by the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.data.toy import dataset as toy
from tests.helpers.random_weights import save_random_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with confident predictions, saved as in segkit's training."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    save_random_weights(path, toy.CATEGORIES)
    return path
