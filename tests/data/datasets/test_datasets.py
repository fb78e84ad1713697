"""Built-in dataset names: downloaded folder trees are read by the mapper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.config import load_config
from segkit.data.catalog import load_dataset
from segkit.data.dataset import PANOPTIC_METRICS, Dataset
from segkit.data.datasets import register_datasets
from segkit.data.mapper import SegkitMapper
from segkit.formats.voc import CLASS_NAMES
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import write_volume

PERSON = CLASS_NAMES.index("person") + 1
H, W = 4, 6


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def two_objects(first: int, second: int, between: int = 0) -> np.ndarray:
    """Masks of columns 0 and 1, and of columns 4 and 5."""
    labels = np.full((H, W), between, np.uint8)
    labels[:, :2], labels[:, 4:] = first, second
    return labels


def samples(dataset: Dataset) -> list[dict[str, Any]]:
    cfg = load_config(opts=["MODEL.META_ARCHITECTURE", "PanopticRCNN"])
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (H,), "none"
    mapper = SegkitMapper.from_config(cfg, dataset, True)
    return [mapper(record) for record in dataset.records]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    register_datasets(str(folder))
    return folder


@pytest.mark.parametrize("location", ["VOC2012", "VOCdevkit/VOC2012"])
def test_voc(root: Path, location: str) -> None:
    folder = root / location
    for name, split in (("2007_000001", "train"), ("2007_000002", "val")):
        save(folder / "JPEGImages" / f"{name}.jpg", np.full((H, W, 3), 90))
        save(folder / "SegmentationClass" / f"{name}.png", two_objects(PERSON, PERSON, 255))
        save(folder / "SegmentationObject" / f"{name}.png", two_objects(1, 2, 255))
        list_of_split = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        list_of_split.parent.mkdir(parents=True, exist_ok=True)
        list_of_split.write_text(f"{name}\n")
    dataset = load_dataset("segkit_voc_2012_panoptic_train")
    (sample,) = samples(dataset)
    assert dataset.metrics == PANOPTIC_METRICS
    assert sample["image_id"] == "2007_000001"
    assert sample["instances"].gt_classes.tolist() == [PERSON - 1] * 2
    assert sample["sem_seg"][0].tolist() == [0, 0, 255, 255, 0, 0]  # channel 0 is all things, 255 void
    semantic = load_dataset("segkit_voc_2012_sem_seg_val")
    assert semantic.metrics == ("semantic_iou",)
    (sample,) = samples(semantic)
    names = semantic.categories.build_semantic_space("per_class").names
    assert names[int(sample["sem_seg"][0, 0])] == "person"
    assert load_dataset("segkit_voc_2012_instance_seg_val").metrics == ("mask_ap",)


def test_ade20k_is_read_as_downloaded(root: Path) -> None:
    folder = root / "ADEChallengeData2016"
    save(folder / "images" / "validation" / "ADE_val_00000001.jpg", np.full((H, W, 3), 90))
    save(folder / "annotations" / "validation" / "ADE_val_00000001.png", two_objects(1, 8))  # wall, bed
    save(
        folder / "annotations_instance" / "validation" / "ADE_val_00000001.png",
        np.stack([two_objects(0, 1), two_objects(0, 1), two_objects(0, 0)], axis=-1),  # instance 1 of class 1: bed
    )
    dataset = load_dataset("segkit_ade20k_panoptic_val")
    (sample,) = samples(dataset)
    assert [dataset.categories.things[i].category_id for i in sample["instances"].gt_classes.tolist()] == [8]
    assert sample["sem_seg"][0].tolist() == [1, 1, 255, 255, 0, 0]
    (sample,) = samples(load_dataset("segkit_ade20k_sem_seg_val"))
    assert sample["sem_seg"][0].tolist() == [0, 0, 255, 255, 7, 7]  # 150 classes from 1


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 3, 4, 7, 8, 11, 19, 20, 33],  # patients 1, 1, 2, 2, 4, 4, 6, 10, 10, 17: a fifth of six is one
        [1, 2, 3, 4],  # one of two
    ],
)
def test_decathlon_keeps_both_volumes_of_a_patient_together(root: Path, numbers: list[int]) -> None:
    folder = root / "Task04_Hippocampus"
    for number in numbers:
        voxels = np.zeros((W, H, 2), np.uint8)
        voxels[:2, :, 0], voxels[2:4, :, 0] = 1, 2
        write_volume(folder / "imagesTr" / f"hippocampus_{number:03d}.nii.gz", voxels * 100.0)
        write_volume(folder / "labelsTr" / f"hippocampus_{number:03d}.nii.gz", voxels)
        (folder / "labelsTr" / f"._hippocampus_{number:03d}.nii.gz").write_bytes(b"macOS")
    train, val = (load_dataset(f"segkit_decathlon_hippocampus_{split}") for split in ("train", "val"))
    patients = [{(int(r["image_id"].split("_")[1]) + 1) // 2 for r in d.records} for d in (train, val)]
    assert not patients[0] & patients[1]
    assert len(patients[1]) == 1
    assert len(train.records) + len(val.records) == 2 * len(numbers)
    assert [c.name for c in train.categories.stuff] == ["background", "Anterior", "Posterior"]
    assert samples(train)[0]["sem_seg"][0].tolist() == [1, 1, 2, 2, 0, 0]


TASKS = "braintumour", "heart", "liver", "hippocampus", "prostate", "lung", "pancreas", "hepaticvessel", "spleen"


@pytest.mark.parametrize("task", [*TASKS, "colon"])
def test_decathlon_has_ten_tasks(root: Path, task: str) -> None:
    with pytest.raises(DatasetError, match=rf"(?i)Task\d\d_{task}: expected"):
        load_dataset(f"segkit_decathlon_{task}_val")


def test_folders_of_label_maps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("nuclei", "label_maps/worms"):
        for image in range(20):
            save(tmp_path / name / "images" / f"{image}.png", np.full((H, W), 10 * image))
            save(tmp_path / name / "labels" / f"{image}.png", two_objects(1, 7))
    (tmp_path / "label_maps" / "my cells" / "labels").mkdir(parents=True)
    register_datasets(tmp_path)
    assert "my cells is left out: a dataset's name may have letters" in caplog.text
    for name, thing in (("segkit_nuclei", "nucleus"), ("segkit_label_maps_worms", "object")):
        halves = [load_dataset(f"{name}_{split}") for split in ("train", "val")]
        assert {r["image_id"] for d in halves for r in d.records} == {str(i) for i in range(20)}
        assert sum(len(d.records) for d in halves) == 20
        assert [c.name for c in halves[0].categories.things] == [thing]
        assert len(samples(halves[1])[0]["instances"]) == 2


def test_ade20k_prepared_for_mask2former_is_read_unchanged(root: Path) -> None:
    folder = root / "ADEChallengeData2016"
    save(folder / "images" / "training" / "a.jpg", np.full((H, W, 3), 90))
    save(folder / "ade20k_panoptic_train" / "a.png", np.stack([two_objects(5, 5, 5)] + [two_objects(0, 0)] * 2, -1))
    categories = [{"id": 0, "name": "wall", "isthing": 0, "color": [1, 2, 3]}]
    segment = {"id": 5, "category_id": 0, "iscrowd": 0, "area": H * W, "bbox": [0, 0, W, H]}
    annotation = {"image_id": "a", "file_name": "a.png", "segments_info": [segment]}
    image = {"id": "a", "file_name": "a.jpg", "height": H, "width": W}
    content = {"images": [image], "annotations": [annotation], "categories": categories}
    (folder / "ade20k_panoptic_train.json").write_text(json.dumps(content))
    assert [c.category_id for c in load_dataset("segkit_ade20k_panoptic_train").categories.stuff] == [0]


def test_a_missing_folder_of_all_datasets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the config of a run is used from another folder, and DETECTRON2_DATASETS is relative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", "mine")
    register_datasets()
    message = f"below {tmp_path}/mine, which does not exist; set DETECTRON2_DATASETS to their folder"
    with pytest.raises(DatasetError, match=rf"instances_val2017\.json.*{re.escape(message)}"):
        load_dataset("segkit_coco_2017_val")
    Path("mine").mkdir()
    with pytest.raises(DatasetError, match=r"instances_val2017\.json") as raised:
        load_dataset("segkit_coco_2017_val")
    assert "DETECTRON2_DATASETS" not in str(raised.value)
