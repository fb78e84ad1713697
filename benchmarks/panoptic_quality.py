"""Panoptic quality of COCO-sized PNG pairs: segkit against panopticapi's pq_compute_single_core, one thread each.

Makes its own images (overlapping ellipses; predictions moved, missed and mistaken a little) in a temporary folder,
scores them from the PNG files on in short alternating bursts, stops where a number differs, and prints the ratio.

    python benchmarks/panoptic_quality.py [--images 200]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkit.metrics import PanopticQuality
from segkit.structures import (
    Category,
    CategorySet,
    PanopticSegmentation,
    Segment,
    default_color,
    ids_to_rgb,
    rgb_to_ids,
)

try:
    from panopticapi.evaluation import PQStat, pq_compute_single_core
except ImportError as error:
    raise SystemExit("needs the peer: pip install --no-deps panopticapi-lite==0.2.0") from error

HEIGHT, WIDTH = 480, 640
THINGS, STUFF = 80, 53  # COCO panoptic's numbers of classes
ELLIPSES = 18  # painted per image; some hide others
BURST = 10  # images per turn: short, since a shared machine slows down under long load
SEED = 0
CATEGORIES = CategorySet(Category(i, f"class {i}", i <= THINGS, default_color(i)) for i in range(1, THINGS + STUFF + 1))
BY_ID = {entry["id"]: entry for entry in CATEGORIES.to_coco()}

Pair = tuple[dict[str, Any], dict[str, Any]]  # COCO panoptic annotations of truth and prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="pairs of PNG files (default: %(default)s)")
    images = max(1, parser.parse_args().images)
    rng = np.random.default_rng(SEED)
    everything, ratios = PanopticQuality(CATEGORIES), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = [make_pair(folder, index, rng) for index in range(images)]
        score_ours(folder, pairs[:1])
        score_theirs(folder, pairs[:1])
        for first in range(0, images, BURST):
            ours, seconds = score_ours(folder, pairs[first : first + BURST])
            theirs, their_seconds = score_theirs(folder, pairs[first : first + BURST])
            check_equal(ours, theirs)
            ratios.append(their_seconds / seconds)
            everything.merge(ours)
    results = everything.compute()
    matches = sum(one["tp"] for one in results["per_class"].values())
    print(f"{images} pairs of {HEIGHT} x {WIDTH}: PQ {results['PQ']:.2f}, {matches} matches, all numbers equal")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} bursts"
    print(f"segkit / panopticapi, pairs per second, PNG files to counts: {statistics.median(ratios):.2f}x ({spread})")


def make_pair(folder: Path, index: int, rng: np.random.Generator) -> Pair:
    """Write both maps as PNG; some things are crowds, some predictions are missing or of another category."""
    ellipses = rng.uniform([0, 0, 10, 10, 0], [WIDTH, HEIGHT, 160, 120, 360], size=(ELLIPSES, 5))
    moved = ellipses + rng.normal(0, [4, 4, 3, 3, 2], size=ellipses.shape)
    ids = rng.choice(np.arange(1, 2**24), size=ELLIPSES, replace=False)
    categories = rng.integers(1, len(CATEGORIES) + 1, size=ELLIPSES)
    guessed = np.where(rng.random(ELLIPSES) < 0.8, categories, rng.permutation(categories))
    crowds = ids[(categories <= THINGS) & (rng.random(ELLIPSES) < 0.1)]
    found = rng.random(ELLIPSES) < 0.9
    true_map, predicted_map = paint(ellipses, ids), paint(moved[found], ids[found])
    truth = annotate(folder / f"true_{index}.png", true_map, ids, categories, crowds)
    prediction = annotate(folder / f"predicted_{index}.png", predicted_map, ids, guessed, np.array([]))
    return truth | {"image_id": index}, prediction | {"image_id": index}


def paint(ellipses: NDArray[np.float64], ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """(H, W) ids of filled ellipses (x, y, half axes, degrees), later ones on top; the rest is void."""
    canvas = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for (x, y, a, b, degrees), segment_id in zip(ellipses.tolist(), ids.tolist(), strict=True):
        axes = (max(1, round(a)), max(1, round(b)))
        cv2.ellipse(canvas, (round(x), round(y)), axes, degrees, 0, 360, segment_id, cv2.FILLED)
    return canvas


def annotate(
    path: Path,
    segment_ids: NDArray[np.int32],
    ids: NDArray[np.int64],
    categories: NDArray[np.int64],
    crowds: NDArray[np.int64],
) -> dict[str, Any]:
    """Write the PNG; its COCO annotation with the segments still to be seen."""
    Image.fromarray(ids_to_rgb(segment_ids)).save(path)
    category_of, crowd_ids = dict(zip(ids.tolist(), categories.tolist(), strict=True)), set(crowds.tolist())
    seen = zip(*(column.tolist() for column in np.unique(segment_ids, return_counts=True)), strict=True)
    infos = [
        {"id": i, "category_id": category_of[i], "area": area, "iscrowd": int(i in crowd_ids)} for i, area in seen if i
    ]
    return {"file_name": path.name, "segments_info": infos}


def score_ours(folder: Path, pairs: Sequence[Pair]) -> tuple[PanopticQuality, float]:
    start = time.perf_counter()
    metric = PanopticQuality(CATEGORIES)
    for truth, prediction in pairs:
        metric.update(truth["image_id"], read(folder, truth), read(folder, prediction))
    return metric, time.perf_counter() - start


def read(folder: Path, annotation: dict[str, Any]) -> PanopticSegmentation:
    segments = tuple(
        Segment(info["id"], info["category_id"], info["category_id"] <= THINGS, info["area"], bool(info["iscrowd"]))
        for info in annotation["segments_info"]
    )
    with Image.open(folder / annotation["file_name"]) as image:
        return PanopticSegmentation(rgb_to_ids(np.asarray(image)), segments)


def score_theirs(folder: Path, pairs: Sequence[Pair]) -> tuple[PQStat, float]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        stat = pq_compute_single_core(0, pairs, str(folder), str(folder), BY_ID)
    return stat, time.perf_counter() - start


def check_equal(ours: PanopticQuality, theirs: PQStat) -> None:
    """Stop with both numbers where they differ in any bit."""
    results = ours.compute()
    for category_id in BY_ID:
        expected, one = theirs[category_id], results["per_class"][str(category_id)]
        sq = 100 * (expected.iou / expected.tp if expected.tp else 0.0)
        got = (one["tp"], one["fp"], one["fn"], one["SQ"] or 0.0)
        if got != (expected.tp, expected.fp, expected.fn, sq):
            raise SystemExit(f"category {category_id}: segkit {got}, panopticapi {vars(expected)}")
    average, _ = theirs.pq_average(BY_ID, None)
    if results["PQ"] != 100 * average["pq"]:
        raise SystemExit(f"PQ: segkit {results['PQ']}, panopticapi {100 * average['pq']}")


if __name__ == "__main__":
    main()
