"""A ground truth of crowds only or of nothing, and boxes that are no pixels: the log says why metrics are useless."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from segkit.utils.process_pool import Shard
from tests.helpers.damaged_datasets import IMAGES, instances, panoptic


@pytest.mark.parametrize(
    ("crowds", "text"),
    [
        (True, f"all {2 * IMAGES} annotations are crowds (iscrowd 1)"),
        (False, "no annotation is of a class that is scored"),
    ],
)
def test_ap(tmp_path: Path, crowds: bool, text: str, caplog: pytest.LogCaptureFixture) -> None:
    data = instances(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with caplog.at_level(logging.WARNING):
        score_instances(data.json_path, tmp_path / "results.json")
        assert caplog.messages == []
        content = data.load()
        content["annotations"] = [{**a, "iscrowd": 1} for a in content["annotations"]] if crowds else []
        data.store(content)
        score_instances(data.json_path, tmp_path / "results.json", shard=Shard(1, 2))
        assert caplog.messages == []
        score_instances(data.json_path, tmp_path / "results.json")
    assert caplog.messages == [f"{data.json_path}: {text}"]


def test_pq(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = panoptic(tmp_path)
    with caplog.at_level(logging.WARNING):
        score_panoptic(data.json_path, data.json_path, data.masks, data.masks)
        assert caplog.messages == []
        content = data.load()
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                info["iscrowd"] = 1
        data.store(content)
        score_panoptic(data.json_path, data.json_path, data.masks, data.masks)
    assert caplog.messages == [f"{data.json_path}: all {4 * IMAGES} segments are crowds (iscrowd 1)"]


def test_boxes_that_are_shares_of_the_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = instances(tmp_path)
    results = tmp_path / "results.json"
    entry = {"image_id": 0, "category_id": 1, "score": 0.9}
    with caplog.at_level(logging.WARNING):
        for box, texts in (([0, 0, 1, 1], []), ([0.1, 0.2, 0.3, 0.9], ["all boxes are in 0..1, expected pixels"])):
            results.write_text(json.dumps([{**entry, "bbox": box}]))
            score_instances(data.json_path, results, iou_types=["bbox"])
            assert [message.split(": ")[1] for message in caplog.messages] == texts
