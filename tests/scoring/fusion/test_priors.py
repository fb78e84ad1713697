"""Occlusion priors counted over files, with any number of workers; all errors are reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.formats import coco
from segkit.fusion.occlusion_priors import OcclusionCounter
from segkit.scoring.fusion.priors import count_priors
from segkit.utils.errors import DatasetError
from tests.helpers.saved_heads import write


@pytest.fixture
def ground_truth(tmp_path: Path) -> Path:
    return write(tmp_path, 7)[1]


def test_counts_of_images_are_added(ground_truth: Path) -> None:
    read = coco.read_panoptic(ground_truth)
    priors = OcclusionCounter(read.categories)
    for record in read.records:
        png = ground_truth.with_suffix("") / record.png_name
        priors.update(coco.read_segmentation(png, record.segments_info, read.categories))
    assert priors.compute().counts
    seen: list[tuple[int, int]] = []
    assert count_priors(ground_truth, progress=lambda *at: seen.append(at)) == priors.compute()
    assert seen[-1] == (7, 7)
    assert count_priors(ground_truth, ground_truth.with_suffix(""), workers=2) == priors.compute()


def test_all_errors_are_reported(ground_truth: Path) -> None:
    for name in ("1.png", "4.png"):
        (ground_truth.with_suffix("") / name).write_bytes(b"no PNG")
    with pytest.raises(DatasetError, match=r"2 problems:\n- 2 times: (?=.*1\.png)(?=.*4\.png)"):
        count_priors(ground_truth)
