#!/usr/bin/env python3
"""Folders of images, from files to overlays and JSON, against Detectron2's demo; and the memory that folders take.

    python benchmarks/predict.py [FOLDER] [--images 10] [--rounds 3] [--model panoptic|instances] [--device cuda]
    python benchmarks/predict.py --memory 5000          # small images: growth of the resident memory
    python benchmarks/predict.py --tiles 20000          # one square image of this side in tiles: peak of the command

The peer is what Detectron2's demo/demo.py does: `DefaultPredictor` image by image, `Visualizer`, and
`instances_to_coco_json`, written at the end. Both have the same random weights (ResNet-50 of the recipe), find as many
objects as --objects allows, use the same two threads, and predict the same images in turns; loading the model is not
counted. Without FOLDER, scenes of 480 x 640 are drawn. Stops if more than 1 % of the results have no equal one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import build_model
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

from segkit.data.class_counts import resolve_for_categories
from segkit.data.datasets.coco import CATEGORIES
from segkit.data.toy import dataset as toy
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config
from segkit.runtime.folder import FolderJob
from segkit.runtime.image_inputs import find_images
from segkit.structures import CategorySet, rle_to_mask
from segkit.utils import memory

RECIPES = {"panoptic": "coco/panoptic_rcnn_R50_FPN_1x", "instances": "coco/mask_rcnn_R50_FPN_1x"}
TINY = "toy/panoptic_rcnn_R18_FPN"
# Standard deviation of noise in weights, so that boxes and pixels have different classes, and scores differ.
NOISE = {"predict": 0.05, "cls_score": 0.004}
THREADS = 2
MIN_IOU, MAX_SCORE_DIFFERENCE, MAX_UNEQUAL = 0.98, 1e-3, 0.01
SCENE_HW = 480, 640
SMALL_PX, SAMPLES, TILE_PX = 64, 10, 2048
FEW = ["MODEL.RPN.POST_NMS_TOPK_TEST", "50", "TEST.DETECTIONS_PER_IMAGE", "10"]  # the memory of many images, not of one
MIB = 2**20
COMMAND = """import sys
from segkit.cli.main import main
from segkit.utils.memory import read_peak_mib
if status := main(sys.argv[1:]):
    sys.exit(status)
print(read_peak_mib())"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="images")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=RECIPES, default="panoptic")
    parser.add_argument("--objects", type=int, default=20, help="most objects in an image")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE pairs of both, last")
    parser.add_argument("--memory", type=int, metavar="N", help="predict N small images")
    parser.add_argument("--tiles", type=int, metavar="SIDE", help="predict an image of SIDE x SIDE pixels")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as name:
        if options.memory:
            measure_growth(options.memory, Path(name))
        elif options.tiles:
            measure_tiles(options.tiles, Path(name))
        else:
            compare(options, Path(name))


def compare(options: Any, folder: Path) -> None:
    """Predict the images in turns, check that the results are equal, and print the ratio."""
    if options.folder is None:
        draw_scenes(folder / "scenes", options.images)
    paths = find_images([options.folder or str(folder / "scenes")])[: options.images]
    things = CategorySet(CATEGORIES.things)
    opts = ["MODEL.DEVICE", options.device, "TEST.DETECTIONS_PER_IMAGE", str(options.objects), *options.opts]
    weights = write_weights(folder, RECIPES[options.model], CATEGORIES if options.model == "panoptic" else things, opts)
    cfg = read_config(RECIPES[options.model], [*opts, "MODEL.WEIGHTS", str(weights)], train=False)
    ours = SegmentationModel(cfg)
    peer = build_peer(ours)
    walls: dict[str, list[float]] = {"Detectron2": [], "segkit": []}
    cpus: dict[str, list[float]] = {"Detectron2": [], "segkit": []}
    for number in range(options.rounds + 1):  # the first one is not counted
        used = paths[:1] if number == 0 else paths
        for name in walls:
            started, cpu = time.perf_counter(), time.process_time()
            if name == "segkit":
                FolderJob(ours.description, used, folder / f"ours{number}", save=("overlays", "json")).run(ours)
            else:
                expected = run_peer(peer, used, folder / f"peer{number}", things)
            walls[name].append((time.perf_counter() - started) / len(used))
            cpus[name].append((time.process_time() - cpu) / len(used))
        check_equal(json.loads((folder / f"ours{number}/instances.json").read_text())["annotations"], expected)
    print(f"{options.model}, {len(paths)} images, {len(expected)} results, {options.device}, {THREADS} threads")
    for name in walls:
        wall, cpu = (statistics.median(times[name][1:]) for times in (walls, cpus))
        print(f"{name:>12} {1 / wall:6.3f} images/s, {cpu:.2f} s of the processor for an image")
    for title, times in (("images/s", walls), ("processor", cpus)):
        ratios = [theirs / mine for theirs, mine in zip(times["Detectron2"][1:], times["segkit"][1:], strict=True)]
        print(f"ratio of {title}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def draw_scenes(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(toy.draw_scene(0, index, SCENE_HW)[0]).save(folder / f"{index}.jpg")


def write_weights(folder: Path, recipe: str, categories: CategorySet, opts: Sequence[str] = ()) -> Path:
    """Random weights that keep activations small and detect many objects, with the classes of the dataset."""
    torch.manual_seed(0)
    cfg = read_config(recipe, ["MODEL.WEIGHTS", "", *opts], train=False)
    resolve_for_categories(cfg, categories, "one", "the benchmark")
    model = build_model(cfg).eval()
    for name, weight in model.state_dict().items():
        if name.endswith(("conv2.norm.weight", "conv3.norm.weight")):
            weight.mul_(0.5)  # frozen norms do not keep the activations of random weights small
        elif name.endswith("norm.running_mean"):
            weight.uniform_(-0.1, 0.1)
        for part, deviation in NOISE.items():
            if part in name.replace("box_predictor", ""):
                weight.add_(torch.randn_like(weight) * deviation)
    path = folder / "model.pth"
    torch.save({"model": model.state_dict(), "segkit": {"categories": categories.to_coco()}}, path)
    return path


def build_peer(ours: SegmentationModel) -> DefaultPredictor:
    """Detectron2's predictor with the same weights, and the names of the classes for its drawings."""
    cfg = ours.given_cfg.clone()
    cfg.defrost()
    things, stuff = ours.categories.things, ours.categories.stuff
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(things)
    if cfg.MODEL.META_ARCHITECTURE == "PanopticRCNN":
        cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(stuff) + 1
    cfg.DATASETS.TEST = ("predict_benchmark",)
    classes = {"thing_classes": [c.name for c in things], "stuff_classes": ["things", *(c.name for c in stuff)]}
    colors = {"thing_colors": [c.color for c in things], "stuff_colors": [(0, 0, 0), *(c.color for c in stuff)]}
    MetadataCatalog.get("predict_benchmark").set(**classes, **colors)
    return DefaultPredictor(cfg)


def run_peer(predictor: Any, paths: Sequence[Path], output: Path, things: CategorySet) -> list[dict[str, Any]]:
    """What demo.py does with each image, and a JSON of all results at the end."""
    output.mkdir()
    results = []
    for image_id, path in enumerate(paths, 1):
        image = read_image(path, format="BGR")
        predictions = predictor(image)
        visualizer = Visualizer(image[:, :, ::-1], predictor.metadata, instance_mode=ColorMode.IMAGE)
        instances = predictions["instances"].to(torch.device("cpu"))
        if "panoptic_seg" in predictions:
            ids, segments_info = predictions["panoptic_seg"]
            drawn = visualizer.draw_panoptic_seg_predictions(ids.to(torch.device("cpu")), segments_info)
        else:
            drawn = visualizer.draw_instance_predictions(predictions=instances)
        drawn.save(str(output / f"{path.stem}.jpg"))
        results += instances_to_coco_json(instances, image_id)
    for result in results:
        result["category_id"] = things.category_id(result["category_id"], isthing=True)
    (output / "results.json").write_text(json.dumps(results))
    return results


def check_equal(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """End the program if too many results have no equal one in the other list."""
    unequal = abs(len(got) - len(expected))
    for result in expected:
        unequal += not any(is_equal(other, result) for other in got)
    if unequal > MAX_UNEQUAL * len(expected):
        raise SystemExit(f"{unequal} of {len(expected)} results differ")


def is_equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    if any(first[key] != second[key] for key in ("image_id", "category_id")):
        return False
    if abs(first["score"] - second["score"]) > MAX_SCORE_DIFFERENCE:
        return False
    masks = [rle_to_mask(each["segmentation"]) for each in (first, second)]
    union = (masks[0] | masks[1]).sum()
    return bool(union == 0 or (masks[0] & masks[1]).sum() / union >= MIN_IOU)


def measure_growth(count: int, folder: Path) -> None:
    """Predict small images with a tiny model, and print the resident memory at times."""
    paths = [folder / f"images/{number:06}.png" for number in range(count)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        pixels, _ = toy.draw_scene(0, number % 100, (SMALL_PX, SMALL_PX))
        cv2.imwrite(str(path), pixels)
    weights = write_weights(folder, TINY, toy.CATEGORIES)
    opts = ["MODEL.WEIGHTS", str(weights), "INPUT.MIN_SIZE_TEST", str(SMALL_PX), *FEW]
    model = SegmentationModel(read_config(TINY, opts, train=False))
    FolderJob(model.description, paths[:1], folder / "first").run(model)
    memory.reset_peak()
    start_mib = memory.read_peak_mib()
    seen: list[float] = []
    predict_pixels, step = model.predict_pixels, max(count // SAMPLES, 1)

    def predict_and_sample(*args: Any, **kwargs: Any) -> Any:
        seen.append(0.0 if len(seen) % step else memory.read_peak_mib() - start_mib)
        return predict_pixels(*args, **kwargs)

    model.predict_pixels = predict_and_sample  # type: ignore[method-assign]
    started = time.perf_counter()
    FolderJob(model.description, paths, folder / "out").run(model)
    rate = count / (time.perf_counter() - started)
    print(f"{count} images of {SMALL_PX} x {SMALL_PX}, {rate:.1f} images/s; start {start_mib:.0f} MiB")
    grown = [f"{mib:.0f}" for mib in (*seen[::step], memory.read_peak_mib() - start_mib)]
    print(f"peak over the start in MiB, every {step} images and at the end: {', '.join(grown)}")


def measure_tiles(side: int, folder: Path) -> None:
    """Predict one large image by the command, and print its peak beside that of a small image."""
    weights = write_weights(folder, TINY, toy.CATEGORIES)
    scene, _ = toy.draw_scene(0, 0, (500, 500))
    repeats = -(-side // 500)
    Image.fromarray(np.tile(scene, (repeats, repeats, 1))[:side, :side]).save(folder / "large.jpg")
    Image.fromarray(scene[:SMALL_PX, :SMALL_PX]).save(folder / "small.jpg")
    start, _ = run_command(folder, weights, "small")
    peak, seconds = run_command(folder, weights, "large")
    image, ids = side * side * 3 / MIB, side * side * 4 / MIB
    print(f"{side} x {side} in tiles of {TILE_PX}: {seconds:.0f} s, peak {peak:.0f} MiB, {start:.0f} of a small image")
    print(f"beyond the small image: image {image:.0f} + ids {ids:.0f} + {peak - start - image - ids:.0f} MiB")


def run_command(folder: Path, weights: Path, name: str) -> tuple[float, float]:
    """The peak in MiB and the seconds of `segkit predict --tile` with one image, in a process of its own."""
    words = ["predict", "--config-file", TINY, "--weights", weights, "--input", folder / f"{name}.jpg", "--output"]
    words += [folder / name, "--tile", TILE_PX, "--opts", "INPUT.MIN_SIZE_TEST", SMALL_PX]
    started = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        raise SystemExit("the command failed")
    return float(ran.stdout.split()[-1]), time.perf_counter() - started


if __name__ == "__main__":
    main()
