"""Before training: datasets without objects, of crowds alone, with absent classes, and shared images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkit.data.datasets.custom import register_by_format, register_panoptic
from segkit.engine.setup import prepare_config
from segkit.utils.errors import ConfigError

MASK_RCNN = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.MASK_ON", "True", "MODEL.DEVICE", "cpu"]
PANOPTIC = ["MODEL.META_ARCHITECTURE", "PanopticRCNN", "MODEL.MASK_ON", "True", "MODEL.DEVICE", "cpu"]
FILTER = "DATALOADER.FILTER_EMPTY_ANNOTATIONS"


@pytest.fixture(autouse=True)
def _propagate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("segkit"), "propagate", True)


def register_instances(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "t_checks") -> None:
    """Register the toy instances after a change of their JSON."""
    content = json.loads((folder / "instances.json").read_text())
    change(content)
    (folder / f"{name}.json").write_text(json.dumps(content))
    register_by_format(name, "coco-instances", json=folder / f"{name}.json", images=folder / "images")


def set_crowds(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["iscrowd"] = 1


def prepare(architecture: list[str], *options: str, train: str = "('t_checks',)", test: str = "()") -> Any:
    return prepare_config(opts=[*architecture, "DATASETS.TRAIN", train, "DATASETS.TEST", test, *options])


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("meta", "MODEL.DEVICE 'meta' computes nothing: its tensors have no values; choose cuda or cpu"),
        ("gpu", "MODEL.DEVICE 'gpu' is unknown; choose cuda or cpu"),
    ],
)
def test_devices_that_train_nothing_are_refused(device: str, message: str, toy_copy: Path) -> None:
    register_instances(toy_copy, lambda content: None)
    with pytest.raises(ConfigError) as error:
        prepare(MASK_RCNN, "MODEL.DEVICE", device)
    assert str(error.value) == message


@pytest.mark.parametrize("filters", ["True", "False"])
def test_crowds_alone_are_no_training_data(filters: str, toy_copy: Path) -> None:
    register_instances(toy_copy, set_crowds)
    message = r"all \d+ annotations of t_checks are crowds \(iscrowd 1\).*; set iscrowd to 0"
    with pytest.raises(ConfigError, match=message):
        prepare(MASK_RCNN, FILTER, filters)


@pytest.mark.parametrize("filters", ["True", "False"])
@pytest.mark.parametrize("checked", ["-1", "3", "0"])
def test_no_annotation_at_all_is_no_training_data(filters: str, checked: str, toy_copy: Path) -> None:
    register_instances(toy_copy, lambda content: content["annotations"].clear())
    with pytest.raises(ConfigError, match=r"expected objects to train on, got 12 images of t_checks without any"):
        prepare(MASK_RCNN, FILTER, filters, "DATASETS.CHECK_IMAGES", checked)


def test_crowds_and_stuff_are_a_warning_without_the_filter(toy_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads((toy_copy / "panoptic.json").read_text())
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = int(segment["category_id"] in things)
    (toy_copy / "panoptic.json").write_text(json.dumps(content))
    register_panoptic("t_checks", toy_copy / "panoptic.json", toy_copy / "panoptic")
    with pytest.raises(ConfigError, match="are crowds"):
        prepare(PANOPTIC, FILTER, "True")
    caplog.clear()
    prepare(PANOPTIC, FILTER, "False")
    assert "are crowds (iscrowd 1), on which no object is trained: only the semantic head learns" in caplog.text


def test_absent_classes_are_named_for_training_and_testing(toy_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    def remove_first_class(content: dict[str, Any]) -> None:
        first = content["categories"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != first]

    register_instances(toy_copy, remove_first_class)
    register_instances(toy_copy, lambda content: None, "t_whole")
    name = json.loads((toy_copy / "instances.json").read_text())["categories"][0]["name"]
    prepare(MASK_RCNN)
    assert f"t_checks: 1 of 4 classes have no label in 12 images, the model cannot learn them: {name}" in caplog.text
    caplog.clear()
    prepare(MASK_RCNN, train="('t_whole',)", test="('t_checks',)")
    assert f"t_checks: 1 of 4 classes have no label in 12 images, not evaluated: {name}" in caplog.text
    caplog.clear()
    prepare(MASK_RCNN, train="('t_whole', 't_checks')")  # together they have all classes
    assert "classes have no label" not in caplog.text


def test_shared_images_are_counted_in_one_warning(toy_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    register_instances(toy_copy, lambda content: None, "t_whole")

    def keep_half(content: dict[str, Any]) -> None:
        content["images"] = content["images"][:6]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]

    register_instances(toy_copy, keep_half)
    prepare(MASK_RCNN, train="('t_checks',)", test="('t_whole',)")
    warning = "6 of the 12 test images of t_whole are training images of t_checks"
    assert [record.message.startswith(warning) for record in caplog.records if "test images" in record.message] == [
        True
    ]
    caplog.clear()
    prepare(MASK_RCNN, train="('t_whole',)", test="('t_whole',)")
    assert "12 of the 12 test images of t_whole are training images of t_whole" in caplog.text


def test_maps_are_counted_if_all_are_decoded(toy_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    register_panoptic("t_checks", toy_copy / "panoptic.json", toy_copy / "panoptic")
    prepare(PANOPTIC, "DATASETS.CHECK_IMAGES", "1")
    assert "classes have no label" not in caplog.text  # the JSON has every segment


def test_a_training_says_that_it_evaluates_without_augmentation(
    toy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register_instances(toy_folder, lambda content: None)
    for enabled in ("False", "True"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            prepare(MASK_RCNN, "TEST.AUG.ENABLED", enabled, test="('t_checks',)")
        assert ("a training evaluates without TEST.AUG" in caplog.text) == (enabled == "True")
