"""`split` and `val_share` of the formats without split lists, for training and testing on one folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from segkit.curation.convert import convert
from segkit.data.catalog import load_dataset
from segkit.data.datasets.custom import register_by_format
from segkit.data.label_counts import warn_of_shared_images
from segkit.data.loaders.readers import TRAINING_READERS
from segkit.formats.coco import CocoPanopticReader
from segkit.formats.registry import get_options, open_writer
from segkit.formats.splits import is_validation

PATHS = {
    "coco-panoptic": {"json": "panoptic.json", "masks": "panoptic", "images": "images"},
    "coco-instances": {"json": "instances.json", "images": "images"},
    "two-channel-png": {"masks": "masks", "images": "images", "categories": "categories.json"},
}
FORMATS = (*PATHS, "labelme", "yolo", "instance-maps", "semantic-maps")


def list_options(format_name: str, root: Path) -> dict[str, Any]:
    return {key: root / name for key, name in PATHS.get(format_name, {"root": "."}).items()}


@pytest.mark.parametrize("format_name", FORMATS)
def test_one_folder_is_divided(
    format_name: str, toy_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("segkit"), "propagate", True)
    toy = CocoPanopticReader(toy_copy / "panoptic.json", toy_copy / "panoptic", toy_copy / "images")
    convert(toy, open_writer(format_name, tmp_path / "set", toy.categories, {}), copy_images=True)
    options = list_options(format_name, tmp_path / "set")
    for name, split in (("t_train", {"split": "train"}), ("t_val", {"split": "val"}), ("t_all", {})):
        share = {"val_share": 0.4} if split else {}
        register_by_format(name, format_name, **options, **split, **share)
    training, testing, everything = map(load_dataset, ("t_train", "t_val", "t_all"))
    names = [[Path(record["file_name"]).stem for record in part.records] for part in (training, testing, everything)]
    assert names[1] == [name for name in names[2] if is_validation(name, 0.4)]
    assert names[0] == [name for name in names[2] if name not in names[1]]
    assert len(names[2]) == len(toy.images)
    assert training.categories == testing.categories == everything.categories
    warn_of_shared_images([training], [testing])
    assert "test images" not in caplog.text
    warn_of_shared_images([training], [everything])
    text = f"{len(names[0])} of the {len(names[2])} test images of t_all are training images of t_train"
    assert text in caplog.text


def test_evaluators_do_not_read_the_file_of_both_splits(toy_copy: Path) -> None:
    """They would count the images of the other split as missed."""
    for name, options in (("t_val", {"split": "val", "val_share": 0.5}), ("t_all", {})):
        register_by_format(name, "coco-instances", **list_options("coco-instances", toy_copy), **options)
    part, everything = load_dataset("t_val"), load_dataset("t_all")
    assert everything.instances_json == toy_copy / "instances.json"
    assert (part.instances_json, "json_file" in part.metadata) == (None, False)
    record = part.records[0]
    whole = next(r for r in everything.records if r["image_id"] == record["image_id"])
    assert record["annotations"] == whole["annotations"]


def test_every_format_of_one_folder_takes_both_options() -> None:
    """Formats with split lists of their own take `split` only; predictions have no split."""
    with_share = {name for name, reader in TRAINING_READERS.items() if "val_share" in get_options(reader)}
    assert with_share == {*FORMATS, "decathlon", "nnunet"}
    with_split = {name for name, reader in TRAINING_READERS.items() if "split" in get_options(reader)}
    assert with_split - with_share == {"ade20k", "cityscapes", "voc"}
    assert {*TRAINING_READERS} - with_split == {"coco-results", "panoptic-predictions", "run", "vipseg"}
