"""Cityscapes' instance AP of files, against cityscapesscripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.scoring.cityscapes_instances import score_cityscapes_instances
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard
from tests.helpers.cityscapes_reference import random_image, reference, write_ground_truth, write_results

IMAGES = [
    "aachen_000000_000019",
    "aachen_000001_000019",
    "bonn_000000_000001",
    "ulm_000000_000001",
    "ulm_000000_000002",
]


def write_tree(root: Path, seed: int, images: list[str] = IMAGES) -> list[Path]:
    """root/gt and root/pred, the results in a subfolder for every other image; the ground truth's paths."""
    rng = np.random.default_rng(seed)
    paths = []
    for number, image_id in enumerate(images):
        ids, masks = random_image(rng)
        paths.append(write_ground_truth(root / "gt", image_id, ids))
        write_results(root / "pred" / ("inner" if number % 2 else "."), image_id, masks)
    return paths


@pytest.mark.parametrize("seed", range(16))
def test_equals_cityscapesscripts_to_the_last_bit(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image more has a false prediction of every label that is predicted, without which the reference may fail."""
    road, mask = np.full((48, 64), 7), np.ones((48, 64), dtype=np.bool_)
    paths = [*write_tree(tmp_path, seed), write_ground_truth(tmp_path / "gt", "zurich_000000_000001", road)]
    write_results(tmp_path / "pred", "zurich_000000_000001", [(i, 0.4, mask) for i in (24, 25, 26, 28, 33)])
    expected = reference(monkeypatch, paths, tmp_path / "pred", tmp_path)
    computed = score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred").compute()
    assert computed == expected
    assert computed["AP"] is not None


def test_only_left_out_predictions_are_0_if_the_reference_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.zeros((30, 40))
    ids[:10, :10] = 26000
    path = write_ground_truth(tmp_path / "gt", "ulm_000000_000001", ids)
    write_results(tmp_path / "pred", "ulm_000000_000001", [(26, 0.5, ids == 0)])
    assert score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred").compute()["AP"] == 0
    with pytest.raises(IndexError):
        reference(monkeypatch, [path], tmp_path / "pred", tmp_path)


def test_its_own_ground_truth_scores_100(tmp_path: Path) -> None:
    """A car of 10 x 20 pixels, and nothing in a second image."""
    ids = np.full((30, 40), 7)
    ids[5:15, 10:30] = 26000
    for image_id, masks in (("ulm_000000_000001", [(26, "0.5", ids == 26000)]), ("ulm_000000_000002", [])):
        write_ground_truth(tmp_path / "gt", image_id, ids if masks else np.zeros((30, 40)))
        write_results(tmp_path / "pred", image_id, masks)
    results = score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred").compute()
    assert {name: value for name, value in results.items() if value is not None} == {
        "AP": 100,
        "AP50": 100,
        "AP-car": 100,
        "AP50-car": 100,
    }


def test_workers_and_shards_and_one_city_give_the_same_results(tmp_path: Path) -> None:
    write_tree(tmp_path, 1)
    whole = score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred")
    steps: list[tuple[int, int]] = []
    threaded = score_cityscapes_instances(
        tmp_path / "gt", tmp_path / "pred", workers=3, progress=lambda done, total: steps.append((done, total))
    )
    assert threaded.compute() == whole.compute()
    assert steps == [(i, 5) for i in range(1, 6)]
    parts = [score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred", shard=Shard(i, 3)) for i in (3, 1, 2)]
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute() == whole.compute()
    assert len(score_cityscapes_instances(tmp_path / "gt/ulm", tmp_path / "pred")) == 2


def test_confidences_are_ranked_in_double_precision(tmp_path: Path) -> None:
    """A false car 1e-12 above a true one: by hand 25, as in the metric's test; one threshold for both would give 50."""
    ids = np.full((30, 40), 7)
    ids[:10, :10] = 26000
    other = np.zeros((30, 40), dtype=np.bool_)
    other[20:, 20:] = True
    write_ground_truth(tmp_path / "gt", "ulm_000000_000001", ids)
    write_results(tmp_path / "pred", "ulm_000000_000001", [(26, "0.3", ids == 26000), (26, "0.300000000001", other)])
    assert score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred").compute()["AP"] == 25


def test_all_problems_are_reported_with_file_and_line(tmp_path: Path) -> None:
    write_tree(tmp_path, 2)
    pred = tmp_path / "pred"
    (pred / "aachen_000000_000019_leftImg8bit_pred.txt").unlink()
    (pred / "aachen_000001_000019_again.txt").write_text("")
    Image.new("L", (4, 4)).save(pred / "small.png")
    Image.new("RGB", (64, 48)).save(pred / "color.png")
    Image.new("L", (64, 48)).save(pred / "fine.png")
    lines = ["gone.png 24 1", "small.png 24 1", "color.png 24 1", "fine.png 24 nan", "fine.png 7 1", "fine.png 24"]
    path = pred / "bonn_000000_000001_leftImg8bit_pred.txt"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "gt/ulm/ulm_000000_000001_gtFine_instanceIds.png").write_bytes(b"no PNG")
    write_ground_truth(tmp_path / "gt", "ulm_000000_000002", np.full((48, 64), 34000))
    with pytest.raises(DatasetError) as caught:
        score_cityscapes_instances(tmp_path / "gt", pred, workers=2)
    said = str(caught.value)
    assert said.startswith("10 problems")
    for expected in (
        f"{pred}: expected one file aachen_000000_000019*.txt, found none; an image without instances needs an empty",
        "expected one file aachen_000001_000019*.txt, found 2: 'aachen_000001_000019_again.txt', 'inner/aachen_",
        f"{path}, line 1: {pred}/gone.png: expected a file, found nothing",
        f"{path}, line 2: {pred}/small.png: expected 48 x 64 pixels (height x width), got 4 x 4",
        f"{path}, line 3: {pred}/color.png: expected a PNG of 8-bit greyscale or palette, got 8-bit RGB",
        f"{path}, line 4: expected a finite confidence, got 'nan'",
        f"{path}, line 5: expected a label id out of [24, 25, 26, 27, 28, 31, 32, 33], got 7, which has no instances",
        f"{path}, line 6: expected `mask.png label_id confidence`, separated by one space each, got 'fine.png 24'",
        "ulm_000000_000001_gtFine_instanceIds.png: expected a PNG",
        "image 'ulm_000000_000002', ground truth: expected ids of labels",
    ):
        assert expected in said
    with pytest.raises(DatasetError, match=r"^3 problems found, the search stopped here"):
        score_cityscapes_instances(tmp_path / "gt", pred, limit=3)


@pytest.mark.parametrize("break_it", ["no ground truth", "no folder of ground truth", "no results", "twice"])
def test_missing_folders_and_ground_truth(break_it: str, tmp_path: Path) -> None:
    write_tree(tmp_path, 3)
    gt, pred, message = tmp_path / "gt", tmp_path / "pred", r"found none; give gtFine/<split>"
    if break_it == "no ground truth":
        gt = pred
    elif break_it == "no folder of ground truth":
        gt = tmp_path / "nothing"
    elif break_it == "no results":
        pred, message = tmp_path / "nothing", "nothing: the folder of results does not exist"
    else:
        (gt / "ulm_000000_000001_gtFine_instanceIds.png").write_bytes(b"")
        message = "expected one ground truth of each name, got a second"
    with pytest.raises(DatasetError, match=message):
        score_cityscapes_instances(gt, pred)


def test_a_single_problem_is_reported_as_it_is(tmp_path: Path) -> None:
    write_tree(tmp_path, 4)
    path: Any = tmp_path / "pred/bonn_000000_000001_leftImg8bit_pred.txt"
    path.unlink()
    with pytest.raises(DatasetError, match=r"pred: expected one file bonn_000000_000001\*.txt, found none"):
        score_cityscapes_instances(tmp_path / "gt", tmp_path / "pred")
