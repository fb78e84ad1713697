"""Detectron2's records of large JSON files are read from the cache with equal values."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.common import DatasetFromList
from detectron2.structures import BoxMode

from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth, has_segmentation, read_segmentation
from segkit.data.loaders.coco import find_image_root
from segkit.data.loaders.readers import ReaderAnnotations
from segkit.data.mapper import SegkitMapper
from segkit.formats.cache import annotations as annotation_cache
from segkit.utils.errors import DatasetError
from tests.helpers import damaged_datasets
from tests.helpers.coco_datasets import load_coco_instances, load_coco_panoptic
from tests.helpers.platforms import needs_fork


@pytest.fixture
def mixed(toy_copy: Path) -> Path:
    """Toy scenes with a polygon, both kinds of RLE, a crowd, and an image without annotations."""
    path = toy_copy / "instances.json"
    content = json.loads(path.read_text())
    first, second, third = content["annotations"][:3]
    height, width = first["segmentation"]["size"]
    first["segmentation"], first["bbox"] = [[1, 1, 9.5, 1, 9, 9.25]], [1, 1, 8.5, 8.25]
    second["segmentation"] = {"size": [height, width], "counts": [10, 20, height * width - 30]}
    third["iscrowd"] = 1
    last = content["images"][-1]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != last]
    path.write_text(json.dumps(content))
    return toy_copy


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKIT_CACHE", str(tmp_path / "cache"))


def instances(folder: Path) -> Dataset:
    return load_coco_instances("t", folder / "instances.json", folder / "images")


def panoptic(folder: Path) -> Dataset:
    paths = folder / "panoptic.json", folder / "panoptic", folder / "images", folder / "instances.json"
    return load_coco_panoptic("t", *paths)


def segments(dataset: Dataset, record: dict[str, Any]) -> Any:
    return read_segmentation(record, dataset.categories).segments if has_segmentation(record) else None


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("load", [instances, panoptic])
def test_records_are_the_same_with_and_without_the_cache(
    mixed: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(mixed)
    plain_segments = [segments(plain, record) for record in plain.records]
    keys = {"annotations", "segments_info"} & plain.records[0].keys()
    plain_records = [{**record, **{key: [*record[key]] for key in keys}} for record in plain.records]
    monkeypatch.setattr(annotation_cache, "SMALLEST_BYTES", 0)
    for _ in range(2):
        lazy = load(mixed)
        assert lazy.categories == plain.categories
        assert lazy.metadata == plain.metadata
        assert all(type(record["annotations"]) is ReaderAnnotations for record in lazy.records)
        for lazy_record, record in zip(lazy.records, plain_records, strict=True):
            assert repr(lazy_record) == repr(record)
            assert lazy_record == record
        assert [segments(lazy, record) for record in lazy.records] == plain_segments
    first = lazy.records[0]["annotations"]
    assert first[0]["segmentation"] == [[1, 1, 9.5, 1, 9, 9.25]]
    assert isinstance(first[1]["segmentation"]["counts"], str)
    assert [annotation["iscrowd"] for annotation in first[:3]] == [0, 0, 1]
    assert {annotation["bbox_mode"] for annotation in first} == {BoxMode.XYWH_ABS}
    assert (len(lazy.records[-1]["annotations"]), len(first)) == (0, len(plain_records[0]["annotations"]))


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("smallest", [0, annotation_cache.SMALLEST_BYTES])
def test_panoptic_records_have_the_keys_of_detectron2(
    mixed: Path, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_cache, "SMALLEST_BYTES", smallest)
    content = json.loads((mixed / "panoptic.json").read_text())
    infos = {entry["image_id"]: entry["segments_info"] for entry in content["annotations"]}
    records = panoptic(mixed).records
    assert len(records) == len(infos)
    for record in records:
        assert Path(record["pan_seg_file_name"]) == mixed / "panoptic" / Path(record["file_name"]).name
        assert Path(record["pan_seg_file_name"]).is_file()
        assert [*record["segments_info"]] == infos[record["image_id"]]
        assert pickle.loads(pickle.dumps(record)) == record
        for segment in copy.deepcopy(record)["segments_info"]:
            segment["category_id"] = -1  # a user's mapper changes its copy
        assert [*record["segments_info"]] == infos[record["image_id"]]
        assert len(pickle.dumps(record["segments_info"])) < 500 + 3 * len(str(mixed))  # read when it is used


@pytest.mark.usefixtures("cached")
def test_detectron2_accepts_the_records(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = instances(mixed)
    monkeypatch.setattr(annotation_cache, "SMALLEST_BYTES", 0)
    lazy = instances(mixed)
    filtered = filter_images_with_only_crowd_annotations(lazy.records)
    assert len(filtered) == len(filter_images_with_only_crowd_annotations(plain.records)) == len(plain.records) - 1
    serialized = DatasetFromList(lazy.records)
    assert [*map(repr, serialized)] == [*map(repr, plain.records)]
    assert copy.deepcopy(lazy.records[0]) == plain.records[0]
    assert len(pickle.dumps(lazy.records[0]["annotations"])) < 500 + len(str(mixed))
    annotations_by_dataset = [
        GroundTruth(Dataset("t", d.categories, (), d.records)).read_annotations(d.records[0]) for d in (plain, lazy)
    ]  # type: ignore[arg-type]
    assert annotations_by_dataset[0] == annotations_by_dataset[1]


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("method", "workers"),
    [pytest.param("fork", 2, marks=needs_fork), pytest.param("spawn", 1, marks=pytest.mark.slow)],
)
def test_workers_of_a_data_loader_read_the_cache(
    mixed: Path, method: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samples(dataset: Dataset, workers: int) -> list[Any]:
        mapper = SegkitMapper(dataset.categories, dataset.categories.build_semantic_space("one"), [])
        mapped = Mapped(DatasetFromList(dataset.records), mapper)
        context = method if workers else None
        return [*torch.utils.data.DataLoader(mapped, None, num_workers=workers, multiprocessing_context=context)]

    plain = samples(instances(mixed), 0)
    monkeypatch.setattr(annotation_cache, "SMALLEST_BYTES", 0)
    for lazy_record, expected in zip(samples(instances(mixed), workers), plain, strict=True):
        assert lazy_record["image_id"] == expected["image_id"]
        assert torch.equal(lazy_record["image"], expected["image"])
        assert torch.equal(lazy_record["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor)
        assert torch.equal(lazy_record["instances"].gt_classes, expected["instances"].gt_classes)


class Mapped(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, records: DatasetFromList, mapper: SegkitMapper) -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        return self.mapper(self.records[index])


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("smallest", [0, 1 << 20])
def test_categories_are_those_of_the_panoptic_json(mixed: Path, smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_cache, "SMALLEST_BYTES", smallest)
    path = mixed / "instances.json"
    content = json.loads(path.read_text())
    used = content["annotations"][0]["category_id"]
    content["categories"] = [*({"id": 1000 + i, "name": f"more {i}"} for i in range(3)), *content["categories"]]
    path.write_text(json.dumps(content))
    dataset = panoptic(mixed)  # the JSON has more categories, which no annotation has
    category_id = dataset.records[0]["annotations"][0]["category_id"]
    assert category_id == dataset.categories.thing_contiguous_ids[used]
    assert pickle.loads(pickle.dumps(dataset.records[0]["annotations"])) == dataset.records[0]["annotations"]
    content["annotations"][0]["category_id"] = 1001
    path.write_text(json.dumps(content))
    for _ in range(2):
        with pytest.raises(
            DatasetError, match=r"instances\.json: .*the dataset's things, got the category ids \[1001\]"
        ):
            panoptic(mixed)


@pytest.mark.parametrize("spell", ["sub\\{}".format, "Sub/{}".format])
def test_names_in_other_spellings_are_found(tmp_path: Path, spell: Callable[[str], str]) -> None:
    """The records have the names of the files, and files that are still missing are explained."""
    data = damaged_datasets.panoptic(tmp_path / "data")
    content = data.load()
    for folder in (data.images, data.masks):
        (folder / "sub").mkdir()
        for path in folder.glob("*.png"):
            path.rename(folder / "sub" / path.name)
    for entry in (*content["images"], *content["annotations"]):
        entry["file_name"] = spell(entry["file_name"])
    data.store(content)
    dataset = load_coco_panoptic("spelled", data.json_path, data.masks, data.images)
    first = dataset.records[0]
    assert first["file_name"] == str(data.images / "sub" / "0.png")
    assert first["pan_seg_file_name"] == str(data.masks / "sub" / "0.png")
    assert find_image_root(data.json_path, [content["images"][0]["file_name"]], data.masks) == data.images
    content["images"][0]["file_name"] = "images/sub/0.png"
    data.store(content)
    with pytest.raises(DatasetError, match=r"images/sub/0\.png \(is it sub/0\.png, without images/\?\)"):
        load_coco_panoptic("spelled", data.json_path, data.masks, data.images)


def test_coordinates_that_are_shares_of_the_image_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = damaged_datasets.instances(tmp_path)
    content = data.load()
    content["annotations"][0]["segmentation"] = [[0.1, 0.2, 0.5, 0.2, 0.5, 1]]
    data.store(content)
    load_coco_instances("shares", data.json_path, data.images)
    assert any("coordinates are in 0..1, expected pixels" in message for message in caplog.messages)
