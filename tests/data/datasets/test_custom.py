"""DATASETS.CUSTOM: one entry, whatever the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.dataset import PANOPTIC_METRICS
from segkit.data.datasets.custom import register_by_format, register_custom
from segkit.data.ground_truth import read_segmentation
from segkit.formats.coco import CocoInstancesWriter
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.one_image import CATEGORIES, GROUND_TRUTH, compare_key, write_panoptic


def register(folder: Path, entry: str) -> None:
    config = folder / "c.yaml"
    config.write_text(f"DATASETS:\n  CUSTOM: [{{name: t_custom, {entry}}}]\n")
    register_custom(load_config(config).DATASETS.CUSTOM)


def test_coco_panoptic_finds_its_images(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    register(tmp_path, f"format: coco-panoptic, json: {tmp_path}/p.json, masks: {tmp_path}/p")
    dataset = load_dataset("t_custom")
    (record,) = dataset.records
    assert Path(record["file_name"]) == tmp_path / "images" / "a" / "x.png"
    assert compare_key(read_segmentation(record, dataset.categories)) == compare_key(GROUND_TRUTH)
    assert dataset.metrics == PANOPTIC_METRICS


def test_coco_instances_keep_their_masks(tmp_path: Path) -> None:
    source = write_panoptic(tmp_path)
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        writer.add(source.images[0], GROUND_TRUTH)
    register(tmp_path, f"format: coco-instances, json: {tmp_path}/instances.json, images: {tmp_path}/images")
    dataset = load_dataset("t_custom")
    assert dataset.metrics == ("mask_ap",)
    assert [(a["category_id"], a["iscrowd"]) for a in dataset.records[0]["annotations"]] == [(0, 0), (0, 1)]


def test_another_format_with_its_own_options(tmp_path: Path) -> None:
    for folder, pixels in (("images", np.full((2, 3), 9, np.uint8)), ("labels", np.eye(2, 3, dtype=np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    register(tmp_path, f"format: instance-maps, root: {tmp_path}, thing: cell")
    assert load_dataset("t_custom").categories.things[0].name == "cell"


def test_yolo_trains_on_polygons(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0 0 0.5 0 0.5 1")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat]")
    register(tmp_path, f"format: yolo, root: {tmp_path}, split: val")
    dataset = load_dataset("t_custom")
    assert dataset.metrics == ("mask_ap",)
    assert [(a["category_id"], a["segmentation"]) for a in dataset.records[0]["annotations"]] == [
        (0, [[0, 0, 2, 0, 2, 2]])
    ]


def test_the_format_is_found(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    register(tmp_path, f"format: auto, root: {tmp_path}")
    (record,) = load_dataset("t_custom").records
    assert compare_key(read_segmentation(record, CATEGORIES)) == compare_key(GROUND_TRUTH)
    register(tmp_path, f"format: auto, root: {tmp_path}/a")
    with pytest.raises(ConfigError, match=r"DATASETS\.CUSTOM, 't_custom': format auto: .*/a does not exist"):
        load_dataset("t_custom")
    with pytest.raises(ConfigError, match="expected `root` to be a path, got 3"):
        register(tmp_path, "format: auto, root: 3")


def test_cityscapes_is_also_evaluated_by_its_own_ap(tmp_path: Path) -> None:
    for folder, kind, pixels in (
        ("leftImg8bit", "leftImg8bit", np.full((2, 3, 3), 90, np.uint8)),
        ("gtFine", "gtFine_instanceIds", np.full((2, 3), 26001, np.uint16)),  # a car
    ):
        (tmp_path / folder / "val" / "aachen").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "val" / "aachen" / f"aachen_000000_000001_{kind}.png")
    register(tmp_path, f"format: cityscapes, root: {tmp_path}, split: val")
    dataset = load_dataset("t_custom")
    assert dataset.metrics == (*PANOPTIC_METRICS, "cityscapes_ap")
    assert [read_segmentation(record, dataset.categories).segment_ids.max() for record in dataset.records] == [26001]


@pytest.mark.parametrize(
    ("format_name", "options", "expected"),
    [
        ("voc2", {"root": "r"}, "unknown format 'voc2' of 't_wrong'; did you mean 'voc'"),
        (
            "coco-panoptic",
            {"root": "r"},
            r"takes \['json', 'masks', 'images', 'instances_json'.*\], needs \['json', 'masks'\]",
        ),
        ("coco-instances", {"json": "j"}, r"needs \['json', 'images'\], got \['json'\]"),
        ("voc", {"root": "r", "on_issue": 1}, r"takes \['root', 'split', 'classes'.*got \['on_issue', 'root'\]"),
        ("yolo", {"root": "r", "valshare": 0.2}, "did you mean 'val_share' for 'valshare'"),
    ],
)
def test_other_options_are_rejected_at_once(format_name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        register_by_format("t_wrong", format_name, **options)


def test_problems_of_files_are_reported_when_they_are_read(tmp_path: Path) -> None:
    register_by_format("t_missing", "coco-panoptic", json=tmp_path / "p.json", masks=tmp_path)
    with pytest.raises(DatasetError, match=r"p\.json"):
        load_dataset("t_missing")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (None, "expected a list of datasets, got None"),
        ([{"name": "t_x", "fromat": "voc", "root": "r"}], "did you mean 'format' for 'fromat'"),
        (
            [{"name": "t_x", "panoptic_jsn": "p", "panoptic_root": "r"}],
            "mean 'panoptic_json' for 'panoptic_jsn'",
        ),
        ([{"name": "t_x"}, 5], "expected name, format and its options, or name, panoptic_json, panoptic_root, got {"),
        ([{"name": "../../x", "format": "voc", "root": "r"}], r"dataset's name of letters.*'\.\./\.\./x'"),
        ([{"name": "/x", "format": "voc", "root": "r"}], "dataset's name of letters"),
        ([{"name": 5, "format": "voc", "root": "r"}], "dataset's name of letters, digits and _ . -, got 5"),
        ([{"name": "t_x", "format": ["voc"], "root": "r"}], r"unknown format \['voc'\]"),
        ([{"name": "t_x", "format": "coco-panoptic", "json": 5, "masks": "m"}], "expected `json` to be a path, got 5"),
        ([{"name": "t_x", "panoptic_json": 5, "panoptic_root": "m"}], "expected `panoptic_json` to be a path, got 5"),
        ([{"name": "t_x", "format": "voc", "root": "r"}] * 2, "the name 't_x' comes twice"),
        ([{"name": "segkit_nuclei_val", "format": "voc", "root": "r"}], "begins with segkit_, as built-in names do"),
    ],
)
def test_invalid_entries_are_rejected(entries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register_custom(entries)


def test_registering_again_rereads_the_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.eye(2, 3, dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
        register_by_format("t_again", "instance-maps", root=tmp_path)
        image_ids = [record["image_id"] for record in load_dataset("t_again").records]
    assert image_ids == ["a", "b"]
