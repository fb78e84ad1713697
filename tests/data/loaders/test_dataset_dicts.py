"""Datasets registered as in Detectron2's tutorial: dicts and `thing_classes`, nothing else."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

import segkit
from segkit.cli.main import main
from segkit.data.catalog import get_categories, load_dataset
from segkit.data.ground_truth import GroundTruth, read_segmentation
from segkit.structures import rle_to_mask
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers import detectron2_script
from tests.helpers.dataset_dicts import SIZE_HW, add_panoptic_maps, add_semantic_maps, draw_masks, instance_dicts

CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
SMALL = """SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 1 DATALOADER.NUM_WORKERS 0 MODEL.FPN.OUT_CHANNELS 16
    MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.DEVICE cpu
    DATASETS.TRAIN ('t_dicts',) DATASETS.TEST ('t_dicts',)"""
THINGS, STUFF = ["square", "disk"], ["things", "sky", "ground"]
Register = Callable[..., None]


@pytest.fixture
def register() -> Iterator[Register]:
    """Register records as t_dicts, with metadata."""

    def register(records: Any, **metadata: Any) -> None:
        remove()
        DatasetCatalog.register("t_dicts", lambda: copy.deepcopy(records))
        MetadataCatalog.get("t_dicts").set(**metadata)

    def remove() -> None:
        if "t_dicts" in DatasetCatalog:
            DatasetCatalog.remove("t_dicts")
        if "t_dicts" in MetadataCatalog:
            MetadataCatalog.remove("t_dicts")

    yield register
    remove()


def train(output: Path, *options: str) -> dict[str, Any]:
    arguments = ["--config-file", CONFIG, *SMALL.split(), "OUTPUT_DIR", str(output), *options]
    assert main(["train", *arguments]) == 0
    return dict(json.loads((output / "metrics.json").read_text()))


@pytest.mark.parametrize("metadata", [{}, {"evaluator_type": "coco"}])
def test_the_tutorials_dataset_trains_is_evaluated_and_exported(
    metadata: dict[str, Any], register: Register, tmp_path: Path
) -> None:
    register(instance_dicts(tmp_path, "rle"), thing_classes=THINGS, **metadata)
    results = train(tmp_path / "run", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    assert set(results) - {"notes"} == {"bbox", "segm"}
    assert {"AP-square", "AP-disk"} <= results["segm"].keys()
    ground_truth = json.loads((tmp_path / "run/inference/t_dicts/instances_gt.json").read_text())
    assert [(c["id"], c["name"]) for c in ground_truth["categories"]] == [(0, "square"), (1, "disk")]
    assert [image["file_name"] for image in ground_truth["images"]] == ["0.png", "1.png"]
    assert len(ground_truth["annotations"]) == 4


def test_a_script_trains_and_predicts_without_segkits_keys(register: Register, tmp_path: Path) -> None:
    register(instance_dicts(tmp_path), thing_classes=THINGS)
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_list([*detectron2_script.SMALL.split(), "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(tmp_path / "run")])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("t_dicts",)
    with pytest.raises(ConfigError, match=r"NUM_CLASSES is 80, but the dataset t_dicts needs 2 .*set it to 2"):
        segkit.Trainer(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    trainer = segkit.Trainer(cfg)
    trainer.train()
    assert (tmp_path / "run" / "report.html").is_file()
    cfg.MODEL.WEIGHTS = str(tmp_path / "run" / "model_final.pth")
    model = segkit.SegmentationModel(cfg)
    assert [thing.name for thing in model.categories.things] == THINGS
    assert model(np.zeros((*SIZE_HW, 3), dtype=np.uint8)).instances is not None


@pytest.mark.parametrize("mask", ["polygon", "rle"])
def test_a_json_that_detectron2_registers_trains_with_any_masks(
    mask: str, toy_copy: Path, tmp_path: Path, register: Register
) -> None:
    if mask == "polygon":
        content = json.loads((toy_copy / "instances.json").read_text())
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        (toy_copy / "instances.json").write_text(json.dumps(content))
    register_coco_instances("t_dicts", {}, str(toy_copy / "instances.json"), str(toy_copy / "images"))
    assert load_dataset("t_dicts").uses_segkit_mapper == (mask == "rle")
    results = train(tmp_path / "run", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    assert set(results) - {"notes"} == {"bbox", "segm"}


def test_classes_that_the_test_images_lack_are_named_after_the_evaluation(
    register: Register, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(instance_dicts(tmp_path), thing_classes=[*THINGS, "never", "neither"])
    train(tmp_path / "run", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    printed = capsys.readouterr().out
    assert "t_dicts: 2 of 4 classes have no label in 2 images, the model cannot learn them: never, neither" in printed
    assert "t_dicts: 2 of 4 classes have no ground truth that counts: 'never', 'neither'" in printed


@pytest.mark.parametrize("disk_mask", ["polygon", "rle", "uncompressed", "bitmask"])
def test_masks_of_every_form_and_boxes_of_both_modes_are_read(
    disk_mask: str, register: Register, tmp_path: Path
) -> None:
    register(instance_dicts(tmp_path, disk_mask), thing_classes=THINGS)
    dataset = load_dataset("t_dicts")
    square, disk = GroundTruth(dataset).read_annotations(dataset.records[1])
    for annotation, mask, box in zip((square, disk), draw_masks(), ([8, 8, 16, 16], [40, 20, 20, 20]), strict=True):
        assert np.array_equal(rle_to_mask(annotation["segmentation"]), mask)
        assert annotation["bbox"] == box
        assert annotation["area"] == mask.sum()
    assert [annotation["category_id"] for annotation in (square, disk)] == [0, 1]


def test_sizes_image_ids_and_annotations_may_be_missing(register: Register, tmp_path: Path) -> None:
    first, second = instance_dicts(tmp_path)
    del first["height"], first["image_id"], second["annotations"]
    second["image_id"] = np.int64(7)
    first["file_name"] = Path(first["file_name"])
    register([first, second], thing_classes=THINGS)
    records = load_dataset("t_dicts").records
    assert [(r["image_id"], r["height"], r["width"], len(r["annotations"])) for r in records] == [
        (0, *SIZE_HW, 2),
        (7, *SIZE_HW, 0),
    ]


def test_categories_are_known_without_reading(register: Register) -> None:
    register([], thing_classes=THINGS, stuff_classes=STUFF)
    categories = get_categories("t_dicts")
    assert [(c.category_id, c.name, c.isthing) for c in categories.categories] == [
        (0, "square", True),
        (1, "disk", True),
        (2, "sky", False),
        (3, "ground", False),
    ]
    register([], thing_classes=THINGS, thing_dataset_id_to_contiguous_id={5: 0, 9: 1})
    assert get_categories("t_dicts").thing_contiguous_ids == {5: 0, 9: 1}
    register([], thing_classes=THINGS, thing_dataset_id_to_contiguous_id={5: 1, 9: 0})  # not in the order of ids
    assert [c.name for c in get_categories("t_dicts").things] == THINGS


def test_semantic_maps_with_annotations_make_a_panoptic_dataset(register: Register, tmp_path: Path) -> None:
    records = instance_dicts(tmp_path, "bitmask")
    add_semantic_maps(records, tmp_path)
    register(records, thing_classes=THINGS, stuff_classes=STUFF)
    dataset = load_dataset("t_dicts")
    segmentation = read_segmentation(dataset.records[0], dataset.categories)
    names = {dataset.categories[s.category_id].name: s.area_px for s in segmentation.segments}
    square, disk = draw_masks()
    upper = np.arange(SIZE_HW[0])[:, None] < SIZE_HW[0] // 2
    sky = int((upper & ~square & ~disk).sum())
    total = SIZE_HW[0] * SIZE_HW[1]
    assert names == {"square": 256, "disk": 400, "sky": sky, "ground": total - 256 - 400 - sky}
    assert set(train(tmp_path / "run")) - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}


@pytest.mark.parametrize("with_isthing", [True, False])
def test_panoptic_records(with_isthing: bool, register: Register, tmp_path: Path) -> None:
    records = instance_dicts(tmp_path)
    add_panoptic_maps(records, tmp_path)
    if not with_isthing:  # then only the classes can say it
        for record in records:
            record["segments_info"] = [{**s, "category_id": 0} for s in record["segments_info"]]
            for segment in record["segments_info"]:
                del segment["isthing"]
        register(records, thing_classes=THINGS)
        assert {
            s.category_id
            for r in load_dataset("t_dicts").records
            for s in read_segmentation(r, get_categories("t_dicts")).segments
        } == {0}
        register(records, thing_classes=THINGS, stuff_classes=STUFF)
        with pytest.raises(DatasetError, match=r"expected isthing in segments_info.*add isthing"):
            load_dataset("t_dicts")
        return
    register(records, thing_classes=THINGS, stuff_classes=STUFF)
    dataset = load_dataset("t_dicts")
    names = [
        dataset.categories[s.category_id].name
        for s in read_segmentation(dataset.records[0], dataset.categories).segments
    ]
    assert names == ["square", "disk", "sky"]
    results = train(tmp_path / "run", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "True")
    assert set(results) - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}


def test_one_list_of_classes_for_things_and_stuff(register: Register, tmp_path: Path) -> None:
    records = instance_dicts(tmp_path)
    add_panoptic_maps(records, tmp_path)
    for record in records:
        record["segments_info"][2]["category_id"] = 2
    names = [*THINGS, "sky"]
    register(records, thing_classes=names, stuff_classes=names)
    assert [(c.name, c.isthing) for c in load_dataset("t_dicts").categories.categories] == [
        ("square", True),
        ("disk", True),
        ("sky", False),
    ]


def test_boxes_without_masks_train_and_are_evaluated(register: Register, tmp_path: Path) -> None:
    records = instance_dicts(tmp_path)
    for record in records:
        for annotation in record["annotations"]:
            del annotation["segmentation"]
    register(records, thing_classes=THINGS)
    options = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.MASK_ON", "False"]
    assert set(train(tmp_path / "run", *options)) - {"notes"} == {"bbox"}


def change(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    """A change of the last annotation of each record."""
    return lambda records: [record["annotations"][-1].update(values) for record in records] and None


def change_record(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: [record.update(values) for record in records] and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(category_id=2), r"category_id from 0 to 1.*\(2: 0\.png, annotation 1: 2.*count classes from 0"),
        (change(category_id="disk"), r"category_id from 0 to 1"),
        (change(bbox_mode=None), r"expected bbox_mode.*add bbox_mode: BoxMode\.XYXY_ABS"),
        (change(bbox_mode=0, bbox=[40, 20, 20, 20]), r"negative width or height as XYXY_ABS.*is it BoxMode\.XYWH_ABS"),
        (change(bbox=[1, 2, 3]), "expected bbox to be four finite numbers"),
        (change(bbox=[1, 2, float("nan"), 3]), "expected bbox to be four finite numbers"),
        (change(segmentation=[[0.1, 0.2, 0.3, 0.2, 0.3, 1.0]]), "polygons in pixels, got coordinates in 0..1"),
        (change(segmentation=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "got a flat list of numbers"),
        (change(segmentation=[[1.0, 2.0, 3.0]]), "an even number of coordinates, three points"),
        (change(segmentation=np.ones((3, 3), dtype=np.uint8)), "a mask of the image's size"),
        (change(segmentation={"size": [3, 3], "counts": [0, 9]}), "RLE of the image's size"),
        (change(segmentation={"size": [3, 3]}), "expected RLE as {size, counts}"),
        (change(segmentation=[]), "expected segmentation in every annotation"),
        (change_record(file_name="nowhere.png"), r"2 of 2 images are missing .*nowhere\.png"),
        (
            lambda records: [record.update(file_name=record["file_name"][:-3] + "PNG") for record in records],
            r"0\.PNG \(is it 0\.png\? The name is spelled in other letter case\)",
        ),
        (change_record(image_id=1), r"image_id comes twice .*1 of 0\.png and 1\.png"),
        (change_record(height=0), "expected height to be a whole number of pixels"),
        (change_record(annotations=7), "expected annotations to be a list"),
        (lambda records: [record.pop("annotations") for record in records], "expected records with annotations"),
        (lambda records: records.clear(), "returned no image"),
    ],
)
def test_wrong_records_are_one_clear_error(
    damage: Callable[[Any], Any], message: str, register: Register, tmp_path: Path
) -> None:
    records = instance_dicts(tmp_path)
    damage(records)
    register(records, thing_classes=THINGS)
    with pytest.raises(DatasetError, match=message) as error:
        load_dataset("t_dicts")
    assert "\n" not in str(error.value)


def test_wrong_metadata_and_functions_are_one_clear_error(register: Register, tmp_path: Path) -> None:
    register(instance_dicts(tmp_path))
    with pytest.raises(ConfigError, match=r"has no classes; set MetadataCatalog\.get\('t_dicts'\)\.thing_classes"):
        load_dataset("t_dicts")
    register(instance_dicts(tmp_path), thing_classes="square")
    with pytest.raises(ConfigError, match="expected thing_classes of the dataset 't_dicts' to be a list of names"):
        load_dataset("t_dicts")
    register(7, thing_classes=THINGS)
    with pytest.raises(DatasetError, match="expected its function to return a list of dicts, got int"):
        load_dataset("t_dicts")
    register(None)
    DatasetCatalog["t_dicts"] = lambda: [][0]
    with pytest.raises(ConfigError, match=r"the function of the dataset 't_dicts' fails: IndexError.*line \d+"):
        load_dataset("t_dicts")


def test_boxes_in_the_other_mode_are_a_warning(
    register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = instance_dicts(tmp_path)
    change(bbox=[40, 20, 60, 40])(records)
    records[0]["annotations"].pop(0)
    register(records, thing_classes=THINGS)
    logging.getLogger("segkit").propagate = True
    with caplog.at_level(logging.WARNING, "segkit"):
        load_dataset("t_dicts")
    assert "2 of 3 boxes leave their image as XYWH_ABS, but fit as XYXY_ABS" in caplog.text


def test_a_name_that_is_registered_again_is_read_again(register: Register, tmp_path: Path) -> None:
    register(instance_dicts(tmp_path), thing_classes=THINGS)
    first = load_dataset("t_dicts")
    assert load_dataset("t_dicts") is first
    register(instance_dicts(tmp_path, images=3), thing_classes=THINGS)
    assert len(load_dataset("t_dicts").records) == 3
