"""AP from COCO JSON files: segkit's score_instances against pycocotools, in one process.

Writes its own data (80 classes, polygons, some crowds as RLE, about 40 results an image, equal scores), scores boxes
and masks from the files on in alternating turns, stops if a metric differs in a bit, and prints the ratios.

    python benchmarks/average_precision.py [--images 1000] [--turns 3]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.metrics.average_precision import STATS
from segkit.metrics.coco_matching import get_library_name
from segkit.scoring.instances import score_instances

HEIGHT, WIDTH = 480, 640
CLASSES, ANNOTATIONS, RESULTS = 80, 7, 40  # as many ground truth an image as COCO has
CROWDS, HITS, SCORES = 0.05, 0.25, 200  # part of crowds, part of results near a ground truth, different scores
POINTS = 24  # of a polygon
SEED = 0
Numbers = dict[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="images (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ground_truth = make(Path(name), max(1, options.images))
        print(
            f"{options.images} images, {CLASSES} classes, {RESULTS} results an image; "
            f"segkit matches by {get_library_name()}"
        )
        for iou_type in ("bbox", "segm"):
            results = Path(name) / f"{iou_type}.json"
            ours(ground_truth, results, iou_type)  # the first call loads compiled code
            pairs = [
                (theirs(ground_truth, results, iou_type), ours(ground_truth, results, iou_type))
                for _ in range(options.turns)
            ]
            if any(their_metrics != our_metrics for (their_metrics, _), (our_metrics, _) in pairs):
                raise SystemExit(f"{iou_type}: pycocotools {pairs[0][0][0]}, segkit {pairs[0][1][0]}")
            slow, fast = (statistics.median(pair[side][1] for pair in pairs) for side in (0, 1))
            ratio = statistics.median(peer[1] / own[1] for peer, own in pairs)
            print(
                f"{iou_type}: AP {pairs[0][0][0]['AP']:.2f}, all {len(pairs[0][0][0])} metrics equal to the last bit;"
            )
            print(f"    pycocotools {slow:.2f} s, segkit {fast:.3f} s, {ratio:.1f} times as fast")


def ours(ground_truth: Path, results: Path, iou_type: str) -> tuple[Numbers, float]:
    start = time.perf_counter()
    numbers = score_instances(ground_truth, results, iou_types=(iou_type,)).compute()[iou_type]
    return numbers, time.perf_counter() - start


def theirs(ground_truth: Path, results: Path, iou_type: str) -> tuple[Numbers, float]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(ground_truth))
        scorer = COCOeval(coco, coco.loadRes(str(results)), iou_type)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    seconds = time.perf_counter() - start
    numbers = {name: percent(value) for name, value in zip(STATS, scorer.stats, strict=True)}
    precision, recall = scorer.eval["precision"], scorer.eval["recall"]
    for kind, values in (("AP", precision[:, :, :, 0, -1]), ("AR", recall[:, None, :, 0, -1])):
        for index, category in enumerate(coco.loadCats(sorted(coco.getCatIds()))):
            defined = values[:, :, index][values[:, :, index] > -1]
            numbers[f"{kind}-{category['name']}"] = percent(np.mean(defined) if defined.size else -1)
    return numbers, seconds


def percent(value: Any) -> float | None:
    return float(value * 100) if value >= 0 else None


def make(folder: Path, images: int) -> Path:
    """Write ground_truth.json, bbox.json and segm.json; return the path of the first."""
    rng = np.random.default_rng(SEED)
    entries, annotations, results = [], [], []
    for image_id in range(1, images + 1):
        entries.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": HEIGHT, "width": WIDTH})
        shapes = [shape(rng) for _ in range(rng.integers(1, 2 * ANNOTATIONS))]
        classes = rng.integers(1, CLASSES + 1, len(shapes)).tolist()
        crowds = (rng.random(len(shapes)) < CROWDS).tolist()
        annotations += [
            {"image_id": image_id, "id": len(annotations) + number, **annotation(points, category_id, crowd)}
            for number, (points, category_id, crowd) in enumerate(zip(shapes, classes, crowds, strict=True), 1)
        ]
        for _ in range(RESULTS):
            near = int(rng.integers(len(shapes))) if rng.random() < HITS else None
            points = shape(rng) if near is None else shapes[near] + rng.normal(0, 3, 2)
            category_id = int(rng.integers(1, CLASSES + 1)) if near is None else classes[near]
            score = int(rng.integers(1, SCORES)) / SCORES
            results.append({"image_id": image_id, "category_id": category_id, "score": score, **traced(points)})
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    ground_truth = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "ground_truth.json").write_text(json.dumps(ground_truth))
    for iou_type, other in (("bbox", "segmentation"), ("segm", "bbox")):
        content = [{key: value for key, value in result.items() if key != other} for result in results]
        (folder / f"{iou_type}.json").write_text(json.dumps(content))
    return folder / "ground_truth.json"


def shape(rng: np.random.Generator) -> NDArray[np.float64]:
    """(POINTS, 2) x, y of a dented ellipse, as large as the objects of COCO."""
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    radii = np.exp(rng.normal(3.3, 0.9, 2)).clip(3, 200) * rng.uniform(0.8, 1.2, (POINTS, 1))
    return rng.uniform([0, 0], [WIDTH, HEIGHT]) + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def inside(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(points.clip(0, [WIDTH - 1, HEIGHT - 1]), 2)


def annotation(points: NDArray[np.float64], category_id: int, crowd: bool) -> dict[str, Any]:
    polygon = inside(points).ravel().tolist()
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH))
    runs = {"size": [HEIGHT, WIDTH], "counts": run_lengths(coco_mask.decode(rle))}
    area, box = float(coco_mask.area(rle)), coco_mask.toBbox(rle).tolist()
    segmentation = runs if crowd else [polygon]
    return {
        "category_id": category_id,
        "iscrowd": int(crowd),
        "area": area,
        "bbox": box,
        "segmentation": segmentation,
    }


def run_lengths(mask: NDArray[np.uint8]) -> list[int]:
    """Uncompressed RLE, as COCO's crowds have it."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(changes, prepend=0, append=flat.size).tolist()


def traced(points: NDArray[np.float64]) -> dict[str, Any]:
    """Box and RLE of a result."""
    canvas = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.fillPoly(canvas, [inside(points).round().astype(np.int32)], 1)
    rle = coco_mask.encode(np.asfortranarray(canvas))
    box = [round(value, 2) for value in (*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist())]
    return {"bbox": box, "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}}


if __name__ == "__main__":
    main()
