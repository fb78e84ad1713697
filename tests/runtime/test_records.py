"""Records of predicted images: kept over the end of a process, and made into COCO's JSONs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segkit.runtime.records import PredictionRecords, merge_shards
from segkit.structures import Category, CategorySet
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(5, "sky", False, (4, 5, 6))])
PARTS = {"weights": "a", "images": "b"}


def build_record(number: int, instances: int = 1) -> dict[str, Any]:
    return {
        "image": {"id": number + 1, "file_name": f"ä{number}.png"},
        "instances": [{"image_id": number + 1, "score": 0.5}] * instances,
        "panoptic": {"image_id": number + 1},
    }


def write(folder: Path, *positions: int, images: int = 3) -> PredictionRecords:
    records = PredictionRecords(folder, PARTS, images)
    for position in positions:
        records.add(position, build_record(position, instances=position))
    records.close()
    return records


def test_tables_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "new/out"
    written = write(folder, 2, 0, 1).write_tables(CATEGORIES)
    panoptic, instances = (json.loads(path.read_text(encoding="utf-8")) for path in written)
    assert [path.name for path in written] == ["panoptic.json", "instances.json"]
    assert [entry["id"] for entry in panoptic["images"]] == [1, 2, 3]
    assert [entry["image_id"] for entry in panoptic["annotations"]] == [1, 2, 3]
    assert [(entry["id"], entry["image_id"]) for entry in instances["annotations"]] == [(1, 2), (2, 3), (3, 3)]
    assert [entry["name"] for entry in panoptic["categories"]] == ["cat", "sky"]
    assert [entry["name"] for entry in instances["categories"]] == ["cat"]
    assert written[0].read_text() == json.dumps(panoptic)


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    write(tmp_path, 0, 1)
    content = (tmp_path / "records.jsonl").read_bytes()
    for cut in (1, 20):  # within the last line
        (tmp_path / "records.jsonl").write_bytes(content[:-cut])
        records = PredictionRecords(tmp_path, PARTS, 3)
        assert [position in records for position in range(3)] == [True, False, False]
        assert (tmp_path / "records.jsonl").read_bytes() == b"".join(content.splitlines(keepends=True)[:2])
    again = write(tmp_path, 2, 1)
    assert len(again) == 3
    assert [record["image"]["id"] for record in again] == [1, 2, 3]


def test_results_of_another_run_are_refused_or_replaced(tmp_path: Path) -> None:
    write(tmp_path, 0)
    for name in ("panoptic.json", "instances.json", "semantic.json"):
        (tmp_path / name).write_text("{}")
    other = {**PARTS, "weights": "c"}
    with pytest.raises(DatasetError, match="has results of another run: other weights; name another output folder, or"):
        PredictionRecords(tmp_path, other, 3)
    records = PredictionRecords(tmp_path, other, 3, overwrite=True)
    assert 0 not in records
    records.add(1, build_record(1))
    records.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predict.json", "records.jsonl"]
    assert [record["image"]["id"] for record in PredictionRecords(tmp_path, other, 3)] == [2]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/panoptic.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"has panoptic\.json, but no predict\.json that says of which run"):
        PredictionRecords(tmp_path / "old", PARTS, 3)
    PredictionRecords(tmp_path / "old", PARTS, 3, overwrite=True)


def test_nothing_is_written_without_a_record(tmp_path: Path) -> None:
    write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_are_merged_in_the_order_of_the_images(tmp_path: Path) -> None:
    """Image 1 of 5 belongs to shard 2 of 3 and cannot be read; shard 3 has image 2 alone."""
    for shard, positions in ((1, (0, 3)), (2, (4,))):
        records = PredictionRecords(tmp_path, PARTS, 5, shard=(shard, 3))
        records.categories = CATEGORIES
        for position in positions:
            records.add(position, build_record(position))
        if shard == 2:
            records.add_error(1, "1.png: no image")
        records.close()
    message = "1 of 5 images are not predicted: of 3 shards, 3 is not complete; run the same command with --shard"
    with pytest.raises(DatasetError, match=message):
        merge_shards(tmp_path)
    other = PredictionRecords(tmp_path, {**PARTS, "weights": "c"}, 5, shard=(3, 3), overwrite=True)
    assert len(other) == 0
    last = PredictionRecords(tmp_path, PARTS, 5, shard=(1, 1))  # with another number of shards
    assert [position for position in range(5) if position in last] == [0, 3, 4]
    last.categories = CATEGORIES
    last.add(2, build_record(2))
    last.close()
    tables, errors = merge_shards(tmp_path)
    assert errors == ["1.png: no image"]
    assert [entry["id"] for entry in json.loads(tables[0].read_text(encoding="utf-8"))["images"]] == [1, 3, 4, 5]
