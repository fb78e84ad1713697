from __future__ import annotations

from pathlib import Path

import pytest

from segkit.formats.coco import PanopticWriter
from segkit.structures import CategorySet
from tests.helpers.coco_samples import CATEGORIES, Dataset, first_image, second_image


@pytest.fixture
def categories() -> CategorySet:
    return CATEGORIES


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    paths = Dataset(tmp_path / "panoptic.json", tmp_path / "panoptic")
    with PanopticWriter(*paths, CATEGORIES) as writer:
        writer.add(11, "eleven.jpg", first_image())
        writer.add("twelve", "sub/twelve.jpg", second_image())
    return paths
