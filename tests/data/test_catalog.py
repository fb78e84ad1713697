"""Registration of datasets: metadata, derived values, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_coco_panoptic_separated

from segkit.config import load_config
from segkit.data.catalog import get_categories, load_dataset, load_datasets, register_dataset
from segkit.data.class_counts import resolve_class_counts
from segkit.data.datasets import register_datasets
from segkit.data.datasets.custom import register_custom, register_panoptic
from segkit.data.ground_truth import GroundTruth, read_segmentation
from segkit.data.toy import dataset as toy
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.coco_datasets import load_coco_panoptic


def test_a_panoptic_json_and_its_pngs_define_a_dataset(toy_folder: Path) -> None:
    register_panoptic("t_enough", toy_folder / "panoptic.json", toy_folder / "panoptic")
    dataset = load_dataset("t_enough")
    assert dataset.categories == toy.CATEGORIES
    assert dataset.metrics == ("panoptic_quality", "mask_ap", "semantic_iou")
    assert len(dataset.records) == len(DatasetCatalog.get("t_enough")) == 12
    assert dataset.records[0]["file_name"] == str(toy_folder / "images" / "000000000001.png")
    meta = MetadataCatalog.get("t_enough")
    assert meta.thing_classes == [c.name for c in toy.CATEGORIES.things]
    assert meta.stuff_classes == ["things", *(c.name for c in toy.CATEGORIES.stuff)]
    assert meta.thing_dataset_id_to_contiguous_id[toy.CATEGORIES.things[1].category_id] == 1
    assert meta.stuff_dataset_id_to_contiguous_id[toy.CATEGORIES.stuff[0].category_id] == 1


def test_a_custom_dataset_is_defined_by_one_yaml_line(toy_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "DATASETS:\n  CUSTOM: [{name: t_yaml, "
        f"panoptic_json: {toy_folder}/panoptic.json, panoptic_root: {toy_folder}/panoptic}}]\n  TRAIN: ('t_yaml',)\n"
    )
    cfg = load_config(config)
    register_custom(cfg.DATASETS.CUSTOM)
    (dataset,) = load_datasets(cfg.DATASETS.TRAIN)
    resolve_class_counts(cfg, dataset)
    counts = cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert counts == (len(toy.CATEGORIES.things), len(toy.CATEGORIES.stuff) + 1)


@pytest.mark.parametrize("entry", [{"name": "x"}, {"name": "x", "panoptic_json": "a", "panoptic_root": "b", "z": 1}, 7])
def test_custom_entries_with_other_keys_are_rejected(entry: Any) -> None:
    with pytest.raises(ConfigError, match=r"DATASETS\.CUSTOM: expected name, format and its options"):
        register_custom([entry])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("MODEL.ROI_HEADS.NUM_CLASSES", 80, f"needs {len(toy.CATEGORIES.things)} (its thing classes)"),
        (
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
            54,
            f'needs {len(toy.CATEGORIES.stuff) + 1} ({len(toy.CATEGORIES.stuff)} stuff classes plus one "thing"',
        ),
    ],
)
def test_class_counts_that_contradict_the_dataset_are_rejected(
    toy_folder: Path, key: str, value: int, expected: str
) -> None:
    register_panoptic("t_counts", toy_folder / "panoptic.json", toy_folder / "panoptic")
    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", "PanopticRCNN", key, str(value)])
    with pytest.raises(ConfigError) as error:
        resolve_class_counts(cfg, load_dataset("t_counts"))
    assert f"{key} is {value}" in str(error.value)
    assert expected in str(error.value)


def test_the_config_selects_one_channel_per_class(toy_folder: Path) -> None:
    register_panoptic("t_channels", toy_folder / "panoptic.json", toy_folder / "panoptic")
    opts = ["MODEL.META_ARCHITECTURE", "PanopticRCNN", "MODEL.SEM_SEG_HEAD.THING_CHANNELS", "per_class"]
    cfg = load_config(opts=opts)
    resolve_class_counts(cfg, load_dataset("t_channels"))
    channels = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert channels == len(toy.CATEGORIES)
    stuff = [cfg.MODEL.PANOPTIC.STUFF_IDS[i] for i, c in enumerate(toy.CATEGORIES.categories) if not c.isthing]
    assert stuff == [*range(1, len(toy.CATEGORIES.stuff) + 1)]


def test_dataset_names_are_lazy_and_have_categories(tmp_path: Path) -> None:
    register_datasets(tmp_path)
    assert len(get_categories("segkit_coco_2017_val_panoptic")) == 133
    assert len(get_categories("segkit_cityscapes_fine_panoptic_val")) == 19
    assert len(get_categories("coco_2017_val_panoptic_separated").stuff) == 53
    with pytest.raises(DatasetError, match="panoptic_val2017"):
        load_dataset("segkit_coco_2017_val_panoptic")


def test_toy_scenes_are_generated_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segkit.data.datasets import toy as names

    monkeypatch.setattr(names, "SPLITS", {"train": (2, 1)})
    register_datasets(tmp_path)
    assert not (tmp_path / "segkit_toy").exists()
    assert len(load_dataset("segkit_toy_train").records) == 2
    assert (tmp_path / "segkit_toy/train/panoptic.json").is_file()


def test_unknown_dataset_names_are_rejected() -> None:
    register_datasets(Path("nowhere"))
    with pytest.raises(ConfigError, match=r"'nope' is not registered; use the names of datasets/README"):
        load_dataset("nope")
    with pytest.raises(
        ConfigError, match=r"'segkit_voc_2012_train' is not.* did you mean .*segkit_voc_2012_sem_seg_train"
    ):
        load_dataset("segkit_voc_2012_train")
    with pytest.raises(ConfigError, match=r"did you mean segkit_coco_2017_val_panoptic"):
        load_dataset("segkit_COCO_2017_val_panoptc")
    with pytest.raises(ConfigError, match="taken by Detectron2"):
        register_dataset("coco_2017_val", lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="evaluator_type 'lvis'"):
        load_dataset("lvis_v1_val")


def test_datasets_of_other_categories_are_not_mixed(toy_copy: Path) -> None:
    content = json.loads((toy_copy / "panoptic.json").read_text())
    content["categories"][0]["name"] = "other"
    (toy_copy / "other.json").write_text(json.dumps(content))
    register_panoptic("t_one", toy_copy / "panoptic.json", toy_copy / "panoptic")
    register_panoptic("t_other", toy_copy / "other.json", toy_copy / "panoptic")
    with pytest.raises(ConfigError, match="t_one and t_other have different categories"):
        load_datasets(["t_one", "t_other"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("images/000000000003.png", r"images: 1 of 12 images are missing .*000000000003\.png"),
        ("panoptic/000000000004.png", r"panoptic: 1 of 12 panoptic PNGs are missing .*000000000004\.png"),
        ("panoptic.json", r"panoptic\.json"),
    ],
)
def test_missing_files_are_named_before_anything_is_read(toy_copy: Path, broken: str, message: str) -> None:
    (toy_copy / broken).unlink()
    register_panoptic("t_missing", toy_copy / "panoptic.json", toy_copy / "panoptic")
    with pytest.raises(DatasetError, match=message):
        load_dataset("t_missing")


def test_an_instances_json_is_rejected_as_a_panoptic_json(toy_folder: Path) -> None:
    register_panoptic("t_wrong", toy_folder / "instances.json", toy_folder / "panoptic")
    with pytest.raises(DatasetError, match="this is an instances JSON"):
        load_dataset("t_wrong")


def test_a_dataset_without_images_is_rejected(toy_copy: Path) -> None:
    content = json.loads((toy_copy / "panoptic.json").read_text())
    content["images"] = content["annotations"] = []
    (toy_copy / "panoptic.json").write_text(json.dumps(content))
    register_panoptic("t_empty", toy_copy / "panoptic.json", toy_copy / "panoptic", toy_copy / "images")
    with pytest.raises(DatasetError, match="'t_empty' has no image"):
        load_dataset("t_empty")


def test_the_image_folder_is_required_if_images_are_elsewhere(toy_copy: Path, tmp_path: Path) -> None:
    (toy_copy / "images").rename(tmp_path / "elsewhere")
    register_panoptic("t_lost", toy_copy / "panoptic.json", toy_copy / "panoptic")
    with pytest.raises(DatasetError, match="give the folder of the images"):
        load_dataset("t_lost")
    register_panoptic("t_lost", toy_copy / "panoptic.json", toy_copy / "panoptic", tmp_path / "elsewhere")
    assert len(load_dataset("t_lost").records) == 12


def test_datasets_of_detectron2_are_loaded(toy_copy: Path, request: pytest.FixtureRequest) -> None:
    for image in (toy_copy / "images").iterdir():  # Detectron2 looks for JPEG files
        image.rename(image.with_suffix(".jpg"))
    for name in ("panoptic.json", "instances.json"):
        content = json.loads((toy_copy / name).read_text())
        for entry in content["images"]:
            entry["file_name"] = entry["file_name"].replace(".png", ".jpg")
        (toy_copy / name).write_text(json.dumps(content))
    toy_folder = toy_copy
    things = {c.category_id: i for i, c in enumerate(toy.CATEGORIES.things)}
    meta = {"thing_classes": [c.name for c in toy.CATEGORIES.things], "thing_dataset_id_to_contiguous_id": things}
    images, instances = str(toy_folder / "images"), str(toy_folder / "instances.json")
    register_coco_instances("d2_toy", meta, instances, images)
    panoptic = {**meta, "stuff_classes": ["things"], "stuff_dataset_id_to_contiguous_id": {0: 0}}
    paths = [str(toy_folder / name) for name in ("panoptic", "panoptic.json", "panoptic")]
    register_coco_panoptic_separated("d2_toy", panoptic, images, *paths, instances)
    for name in ("d2_toy", "d2_toy_separated", "d2_toy_stuffonly"):
        request.addfinalizer(lambda name=name: (DatasetCatalog.remove(name), MetadataCatalog.remove(name)))
    plain, separated = load_dataset("d2_toy"), load_dataset("d2_toy_separated")
    assert plain.metrics == ("mask_ap",)
    assert plain.categories.things[0].name == toy.CATEGORIES.things[0].name
    assert separated.metrics == ("panoptic_quality", "mask_ap", "semantic_iou")
    assert separated.categories == toy.CATEGORIES
    assert not separated.uses_segkit_mapper
    assert separated.records[0]["pan_seg_file_name"].endswith("panoptic/000000000001.png")
    expected = load_coco_panoptic("t", toy_folder / "panoptic.json", toy_folder / "panoptic", toy_folder / "images")
    for registered, record in zip(separated.records, expected.records, strict=True):
        segmentations = [read_segmentation(r, toy.CATEGORIES) for r in (registered, record)]
        assert np.array_equal(segmentations[0].segment_ids, segmentations[1].segment_ids)
        assert segmentations[0].segments == segmentations[1].segments
        assert registered["segments_info"] == record["segments_info"]
    assert GroundTruth(plain).read_annotations(plain.records[0])
