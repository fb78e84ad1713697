"""Panoptic quality from files: segkit against panopticapi on one core and hotcoco with the same threads.

Writes its own images into a temporary folder. Each burst of images goes from JSON and PNG to the metrics with each
scorer in turn; the metrics must be equal.

    python benchmarks/panoptic_quality.py [--bursts 3] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _panoptic_scenes import CATEGORIES, write_pairs

from segkit.scoring.panoptic import score_panoptic

try:
    from panopticapi.evaluation import pq_compute_single_core
except ImportError as error:
    raise SystemExit("needs the peer: pip install --no-deps panopticapi-lite==0.2.0") from error

# Height and width, ellipses, images per turn. Turns are short, since a shared machine slows down under long load, but
# long enough that the start of processes does not decide.
SIZES = {"480 x 640": ((480, 640), 12, 300), "1024 x 2048": ((1024, 2048), 40, 32)}
SEED = 0
ROUNDING = 1e-9
METRICS = ("PQ", "SQ", "RQ")
NAMES = {"": "All", "_th": "Things", "_st": "Stuff"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bursts", type=int, default=3, help="turns of each scorer (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="threads (default: 1 2)")
    args = parser.parse_args()
    if len(args.workers) > 1:  # hotcoco takes its number of threads from the environment, once per process
        for workers in args.workers:
            command = [sys.executable, __file__, "--bursts", str(args.bursts), "--workers", str(workers)]
            subprocess.run(command, check=True)
        return
    workers = args.workers[0]
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    for title, (size_hw, ellipses, burst) in SIZES.items():
        compare(title, size_hw, ellipses, burst, args.bursts, workers)


def compare(title: str, size_hw: tuple[int, int], ellipses: int, burst: int, bursts: int, workers: int) -> None:
    rng = np.random.default_rng(SEED)
    scorers: dict[str, Callable[..., dict[str, Any]]] = {"panopticapi": panopticapi, "segkit": segkit}
    if hotcoco_installed():
        scorers["hotcoco"] = hotcoco
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    with tempfile.TemporaryDirectory() as name:
        pairs = [write_pairs(Path(name) / str(index), burst, size_hw, ellipses, rng) for index in range(bursts + 1)]
        for index, (ground_truth, predictions) in enumerate(pairs):
            results = {}
            for scorer, run in scorers.items():
                start = time.perf_counter()
                results[scorer] = run(ground_truth, predictions, workers)
                if index:  # the first burst warms up
                    seconds[scorer].append(time.perf_counter() - start)
            check_equal(results)
    print(f"{title}, {burst * bursts} pairs, all metrics equal; segkit with {workers} worker(s)")
    for scorer in scorers:
        if scorer != "segkit":
            ratios = [theirs / ours for theirs, ours in zip(seconds[scorer], seconds["segkit"], strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} bursts"
            threads = "1 core" if scorer == "panopticapi" else f"{workers} thread(s)"
            print(f"  {statistics.median(ratios):.2f}x {scorer} on {threads} ({spread})")


def segkit(ground_truth: Path, predictions: Path, workers: int) -> dict[str, Any]:
    scored = score_panoptic(ground_truth, predictions, workers=workers)
    return scored.metric.compute(scored.image_order)


def panopticapi(ground_truth: Path, predictions: Path, workers: int) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        by_image = {entry["image_id"]: entry for entry in json.loads(predictions.read_text())["annotations"]}
        content = json.loads(ground_truth.read_text())
        categories = {category["id"]: category for category in content["categories"]}
        pairs = [(entry, by_image[entry["image_id"]]) for entry in content["annotations"]]
        folders = [str(path.with_suffix("")) for path in (ground_truth, predictions)]
        stat = pq_compute_single_core(0, pairs, *folders, categories)
    results: dict[str, Any] = {"per_class": {}}
    for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
        average, _ = stat.pq_average(categories, isthing)
        results.update({f"{name}{suffix}": 100 * average[name.lower()] for name in METRICS})
    for category_id in categories:
        counts = stat[category_id]
        results["per_class"][str(category_id)] = {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn}
    return results


def hotcoco_installed() -> bool:
    try:
        import hotcoco.panoptic  # noqa: F401
    except ImportError:
        print("hotcoco is not installed (pip install hotcoco==1.3.0): not compared")
        return False
    return True


def hotcoco(ground_truth: Path, predictions: Path, workers: int) -> dict[str, Any]:
    from hotcoco.panoptic import pq_compute

    with contextlib.redirect_stdout(io.StringIO()):
        averages = pq_compute(str(ground_truth), str(predictions))
    groups = NAMES.items()
    return {f"{name}{suffix}": 100 * averages[group][name.lower()] for suffix, group in groups for name in METRICS}


def check_equal(results: dict[str, dict[str, Any]]) -> None:
    """Stop if segkit differs from panopticapi in any bit, or from hotcoco by more than rounding.

    hotcoco adds up in an order of its own.
    """
    ours, theirs = results["segkit"], results["panopticapi"]
    for peer in results.keys() - {"segkit"}:
        for key in (f"{name}{suffix}" for suffix in NAMES for name in METRICS):
            if abs(ours[key] - results[peer][key]) > (ROUNDING if peer == "hotcoco" else 0):
                raise SystemExit(f"{key}: segkit {ours[key]!r}, {peer} {results[peer][key]!r}")
    for category in CATEGORIES.categories:
        key = str(category.category_id)
        got, expected = ours["per_class"][key], theirs["per_class"][key]
        if any(got[name] != expected[name] for name in expected):
            raise SystemExit(f"category {key}: segkit {got}, panopticapi {expected}")


if __name__ == "__main__":
    main()
