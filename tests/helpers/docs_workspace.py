"""A folder in which the commands and scripts of the pages find toy data under the names that they use."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkit.cli.main import main
from segkit.data.toy.dataset import write_dataset
from segkit.formats import png
from tests.helpers import decathlon_tree, prediction_files, video_files, voc_tree

# Cityscapes' names in the place of the toy's: the pages convert a dataset to Cityscapes, whose classes are fixed.
NAMES = {"ball": "car", "crate": "person", "star": "rider", "leaf": "bicycle"}
NAMES |= {"grass": "vegetation", "gravel": "road", "water": "building"}
IMAGE_ID = 139  # of the image that the pages draw
TRAINED_ON = "t_docs"
IMAGES = 4


def build(folder: Path) -> None:
    """Write the datasets and predictions, and train one iteration. The working directory is the folder."""
    _write_scenes(folder)
    _write_predictions(folder)
    _write_other_datasets(folder)
    _train(folder)


def link(workspace: Path, folder: Path) -> None:
    """Make a copy of the workspace that shares its files: what a block writes is not seen by the others."""
    shutil.copytree(workspace, folder, copy_function=os.link, dirs_exist_ok=True)


def run(*arguments: Any) -> None:
    words = [str(argument) for argument in arguments]
    assert main(words) == 0, words


def _write_scenes(folder: Path) -> None:
    scenes = folder / "scenes"
    write_dataset(scenes, IMAGES, 5, (64, 64))
    for name in ("panoptic.json", "instances.json"):
        content = json.loads((scenes / name).read_text(encoding="utf-8"))
        content["images"][0]["id"] = IMAGE_ID
        for annotation in content["annotations"]:
            annotation["image_id"] = IMAGE_ID if annotation["image_id"] == 1 else annotation["image_id"]
        for category in content["categories"]:
            category["name"] = NAMES.get(category["name"], category["name"])
        (scenes / name).write_text(json.dumps(content), encoding="utf-8")
    for split in ("val", "train"):
        _copy(scenes / "panoptic.json", folder / f"panoptic_{split}2017.json")
        _copy(scenes / "instances.json", folder / f"instances_{split}2017.json")
        _copy(scenes / "panoptic", folder / f"panoptic_{split}2017")
        _copy(scenes / "images", folder / f"{split}2017")
    _copy(scenes / "panoptic.json", folder / "coco/annotations/panoptic_val2017.json", folder / "my/train.json")
    _copy(scenes / "panoptic", folder / "coco/panoptic_val2017", folder / "my/panoptic_train")
    _copy(scenes / "images", folder / "my/train", folder / "images", folder / "IMAGES", folder / "photos")
    _copy(scenes / "images", folder / "slides")
    _copy(scenes / "images", folder / "output/demo/data/val/images")
    _copy(scenes / "panoptic", folder / "pngs", folder / "PNGS")
    _copy(scenes / "panoptic.json", folder / "J.json")
    _copy(scenes / "instances.json", folder / "instances.json")
    write_dataset(folder / "others", 2, 6, (64, 64))
    _copy(folder / "others/images", folder / "SPLIT")


def _write_predictions(folder: Path) -> None:
    """The ground truth with scores."""
    scenes = folder / "scenes"
    panoptic = json.loads((scenes / "panoptic.json").read_text(encoding="utf-8"))
    for annotation in panoptic["annotations"]:
        for segment in annotation["segments_info"]:
            segment["score"] = 0.95
    for output in (folder, folder / "out"):
        _copy(scenes / "panoptic", output / "panoptic")
        (output / "panoptic.json").write_text(json.dumps(panoptic), encoding="utf-8")
    instances = json.loads((scenes / "instances.json").read_text(encoding="utf-8"))
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [
        {**{key: annotation[key] for key in keys}, "score": 0.9}
        for annotation in instances["annotations"]
        if not annotation["iscrowd"]
    ]
    for output in (folder, folder / "a", folder / "b"):
        output.mkdir(exist_ok=True)
        (output / "coco_instances_results.json").write_text(json.dumps(results), encoding="utf-8")
    _, cityscapes, cityscapes_predictions = prediction_files.cityscapes_files(folder / "cityscapes_files")
    _copy(cityscapes, folder / "gtFine/val")
    _copy(cityscapes_predictions, folder / "output/cityscapes_instances")
    _, labels, predicted = prediction_files.semantic_files(folder / "semantic_files")
    _copy(labels, folder / "labels/val")
    video_files.write_videos(
        folder / "panoptic_gt_VIPSeg_val.json",
        folder / "panomasksRGB",
        {"a": video_files.CLIP},
        categories=video_files.CATEGORIES,
    )
    video_files.write_videos(folder / "pred.json", folder / "pan_pred", {"a": video_files.SWITCHED})
    _copy(predicted, folder / "predicted/val", folder / "a/predicted", folder / "b/predicted")


def _write_other_datasets(folder: Path) -> None:
    import nibabel

    listed = {"images": json.loads((folder / "scenes/instances.json").read_text(encoding="utf-8"))["images"]}
    (folder / "datasets/coco/annotations").mkdir(parents=True)
    (folder / "datasets/coco/annotations/image_info_test-dev2017.json").write_text(json.dumps(listed), encoding="utf-8")
    _copy(folder / "scenes/images", folder / "datasets/coco/test2017")
    for split, names in {"train": ("a", "b"), "val": ("c",)}.items():
        for number, name in enumerate(names):
            voc_tree.add_image(folder / "VOCdevkit/VOC2012", name)
            pixels = np.full((3, 5, 3), 60 * number + (10 if split == "train" else 99), np.uint8)
            Image.fromarray(pixels).save(folder / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        voc_tree.store_set(folder / "VOCdevkit/VOC2012", "\n".join(names), split)
    rng = np.random.default_rng(0)
    for name in ("mine", "cells"):
        for number in range(12):
            labels = np.zeros((48, 48), np.uint8)
            labels[4:20, 4:20], labels[24:40, 8:30] = 1, 2
            png.write(folder / f"data/{name}/labels/{number}.png", labels)
            png.write(folder / f"data/{name}/images/{number}.png", rng.integers(0, 256, (48, 48, 3)).astype(np.uint8))
    scenes = ["--json", folder / "J.json", "--masks", folder / "PNGS", "--images", folder / "IMAGES"]
    (folder / "data").mkdir(exist_ok=True)
    run("data", "convert", "--from", "coco-panoptic", *scenes, "--to", "labelme", "--output", folder / "data/photos")
    task = folder / "Task04_Hippocampus"
    label = np.zeros((12, 12, 4), np.uint8)
    label[2:6, 2:6], label[6:9, 6:9] = 1, 2
    for name in ("v", "w"):
        decathlon_tree.add_volume(nibabel, task, name, label=label)
    decathlon_tree.write_table(task, ("v", "w"))
    (folder / "balloons").mkdir()
    Image.fromarray(rng.integers(0, 256, (80, 100, 3)).astype(np.uint8)).save(folder / "balloons/1.jpg")


def _train(folder: Path) -> None:
    """One iteration on the scenes, and its evaluation."""
    custom = {"name": TRAINED_ON, "format": "coco-panoptic", "json": str(folder / "panoptic_val2017.json")}
    custom |= {"masks": str(folder / "panoptic_val2017"), "images": str(folder / "val2017")}
    options = f"""DATASETS.TRAIN ('{TRAINED_ON}',) DATASETS.TEST ('{TRAINED_ON}',) SOLVER.MAX_ITER 1
        SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64"""
    output = folder / "output/coco"
    given = [*options.split(), "DATASETS.CUSTOM", str([custom]), "OUTPUT_DIR", output]
    run("train", "--config-file", "toy/panoptic_rcnn_R18_FPN", *given)
    _copy(output / f"inference/{TRAINED_ON}", folder / "a/inference/val", folder / "b/inference/val")
    _copy(output / f"inference/{TRAINED_ON}", folder / "output/demo/inference/val")
    run("predict", "--weights", output, "--input", folder / "photos", "--output", folder / "segments")
    for name in ("demo", "balloons"):
        _copy(output / "model_final.pth", folder / f"output/{name}/model_final.pth")
        _copy(output / "config.yaml", folder / f"output/{name}/config.yaml")


def _copy(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link)
        else:
            os.link(source, target)
