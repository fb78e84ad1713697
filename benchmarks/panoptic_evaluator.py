"""Panoptic quality in the training loop: segkit's evaluator against Detectron2's COCOPanopticEvaluator.

Both get the same predictions in memory (as a model gives them) and a COCO panoptic dataset of synthetic images on disk,
`process` each image and `evaluate` at the end; the metrics must be equal. segkit's evaluator is run with its export
(all predictions as PNG and JSON, the error analysis and the counts), and without it: Detectron2's deletes its PNGs.

    python benchmarks/panoptic_evaluator.py [--images 1200]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _panoptic_scenes import CATEGORIES, write_pairs
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator

from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.data.loaders.readers import ReaderKey, encode_options, get_reader
from segkit.evaluation.base import EvaluatorOptions
from segkit.evaluation.panoptic import PanopticEvaluator
from segkit.formats import coco

SIZE_HW = (480, 640)
ELLIPSES = 12
BURST = 400  # images between two evaluations: enough that the cost of an evaluation's end does not decide
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1200, help="images in all (default: %(default)s)")
    bursts = max(2, parser.parse_args().images // BURST)
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Detectron2's scorer starts a process per core; segkit's evaluator uses one
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(SEED)
    ratios: dict[str, list[float]] = {"with its export": [], "metrics alone": []}
    with tempfile.TemporaryDirectory() as name:
        for index in range(bursts + 1):
            folder = Path(name) / str(index)
            ground_truth, predictions = write_pairs(folder, BURST, SIZE_HW, ELLIPSES, rng)
            dataset = load(f"bench_{index}", ground_truth)
            batches = build_outputs(dataset, ground_truth, predictions)
            theirs, their_seconds = run(detectron2_evaluator(dataset, ground_truth, folder), batches)
            for title, export in (("with its export", True), ("metrics alone", False)):
                evaluator = PanopticEvaluator(
                    GroundTruth(dataset, "one"), folder / title, EvaluatorOptions(export=export)
                )
                ours, seconds = run(evaluator, batches)
                check_equal(ours["panoptic_seg"], theirs["panoptic_seg"])
                if index:  # the first burst warms up
                    ratios[title].append(their_seconds / seconds)
    print(f"{bursts * BURST} images of {SIZE_HW[0]} x {SIZE_HW[1]}, one core, process and evaluate, all metrics equal")
    for title, values in ratios.items():
        spread = f"{min(values):.1f} to {max(values):.1f} over {len(values)} bursts"
        print(f"  segkit {title}: {statistics.median(values):.1f}x COCOPanopticEvaluator ({spread})")


def load(name: str, ground_truth: Path) -> Dataset:
    """The dataset, without images: evaluators open none."""
    options = {"json": ground_truth, "masks": ground_truth.with_suffix(""), "images": ground_truth.parent}
    key = ReaderKey("coco-panoptic", encode_options(options))
    reader, images = get_reader(key)
    records = [
        {
            "file_name": image.file_name,
            "image_id": image_id,
            "height": image.size_hw[0],
            "width": image.size_hw[1],
            "reader": key,
        }
        for image_id, image in images.items()
    ]
    return Dataset(name, reader.categories, ("panoptic_quality",), records)


def build_outputs(
    dataset: Dataset, ground_truth: Path, predictions: Path
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(model input, model output) of every image, with contiguous ids as a model gives them."""
    by_image = coco.read_panoptic_predictions(predictions, CATEGORIES)
    folder = predictions.with_suffix("")
    pairs = []
    for record in dataset.records:
        prediction = by_image[record["image_id"]]
        ids = coco.read_id_runs(folder / prediction.png_name).to_map()
        numbers = {segment_id: number for number, segment_id in enumerate(prediction.category_ids, 1)}
        small = np.zeros_like(ids)
        info = []
        for segment_id, category_id in prediction.category_ids.items():
            small[ids == segment_id] = numbers[segment_id]
            isthing = CATEGORIES[category_id].isthing
            contiguous_ids = CATEGORIES.thing_contiguous_ids if isthing else CATEGORIES.stuff_contiguous_ids
            info.append({"id": numbers[segment_id], "isthing": isthing, "category_id": contiguous_ids[category_id]})
        pairs.append((record, {"panoptic_seg": (torch.from_numpy(small), info)}))
    return pairs


def detectron2_evaluator(dataset: Dataset, ground_truth: Path, folder: Path) -> COCOPanopticEvaluator:
    MetadataCatalog.get(dataset.name).set(
        panoptic_json=str(ground_truth),
        panoptic_root=str(ground_truth.with_suffix("")),
        thing_dataset_id_to_contiguous_id=dict(CATEGORIES.thing_contiguous_ids),
        stuff_dataset_id_to_contiguous_id={0: 0, **CATEGORIES.stuff_contiguous_ids},
    )
    return COCOPanopticEvaluator(dataset.name, str(folder))


def run(evaluator: DatasetEvaluator, batches: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[Any, float]:
    start = time.perf_counter()
    evaluator.reset()
    for record, output in batches:
        ids, info = output["panoptic_seg"]
        evaluator.process([record], [{"panoptic_seg": (ids, [dict(segment) for segment in info])}])
    return evaluator.evaluate(), time.perf_counter() - start


def check_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Detectron2 adds up per process of its pool, which moves the last digits."""
    for name, value in theirs.items():
        if abs(ours[name] - value) > 1e-9:
            raise SystemExit(f"{name}: segkit {ours[name]!r}, Detectron2 {value!r}")


if __name__ == "__main__":
    main()
