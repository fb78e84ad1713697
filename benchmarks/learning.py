#!/usr/bin/env python3
"""What each toy recipe learns in the same processor time: one table, and the curves.

    python benchmarks/learning.py [--minutes 8] [--jobs 2] [--output output/learning] [RECIPE ...]

Writes toy scenes, those of `segkit demo`. Each recipe of configs/toy trains in a process of its own with one thread. A
few iterations are timed first, and SOLVER.MAX_ITER follows, so that every learning rate schedule ends with the budget.
Evaluations are not counted. Methods without training are tuned on the training scenes, however long that takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "configs/toy"
SCENES = {"train": (800, 1), "val": (100, 2)}  # split: (scenes, seed), as in `segkit demo`
TIMED, WARM = 8, 3  # iterations that are run to be timed, and those of them that are left out
CURVE = 4  # evaluations of a training
METRICS = {"PQ": "panoptic_seg/PQ", "mask AP": "segm/AP", "mIoU": "sem_seg/mIoU"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="file names in configs/toy (default: all)")
    parser.add_argument("--minutes", type=float, default=8.0, help="processor time of each training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--output", type=Path, default=Path("output/learning"))
    parser.add_argument("--scenes", type=int, default=0, help="scenes of each split; 0: as many as the demo has")
    parser.add_argument("--train-one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_one:
        train_one(options.recipes[0], options.minutes, options.output)
        return
    write_scenes(options.output / "data", options.scenes)
    recipes = options.recipes or [path.stem for path in sorted(RECIPES.glob("*.yaml")) if path.stem[:5] != "Base-"]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for row in pool.map(lambda recipe: start_one(recipe, options), recipes) if row]
    rows.sort(key=lambda row: [-(row["results"].get(name) or 0) for name in METRICS])
    print(format_table(rows))
    draw_curves(rows, options.output / "learning.png")
    print(options.output / "learning.png")


def write_scenes(folder: Path, images: int) -> None:
    from segkit.data.toy import dataset as toy

    for split, (count, seed) in SCENES.items():
        if not (folder / split).exists():
            toy.write_dataset(folder / split, images or count, seed)


def start_one(recipe: str, options: Any) -> dict[str, Any] | None:
    """Train one recipe in a process of its own; its row, None if it fails."""
    folder = options.output / recipe
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--train-one", recipe, "--output", str(options.output)]
    command += ["--minutes", str(options.minutes)]
    with open(folder / "benchmark.log", "w") as log:
        ran = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if ran.returncode:
        print(f"{recipe} failed: {folder / 'benchmark.log'}", flush=True)
        return None
    row: dict[str, Any] = json.loads((folder / "row.json").read_text())
    print(format_row(row), flush=True)
    return row


def train_one(recipe: str, minutes: float, output: Path) -> None:
    """Time a few iterations, train for the rest of the budget and write row.json."""
    from segkit.engine import jobs
    from segkit.engine.setup import prepare_config

    roots = {split: output / "data" / split / "panoptic" for split in SCENES}
    entries = [
        {"name": f"learning_{split}", "panoptic_json": f"{root}.json", "panoptic_root": str(root)}
        for split, root in roots.items()
    ]
    options = {
        "DATASETS.CUSTOM": str(entries),
        "DATASETS.TRAIN": "('learning_train',)",
        "DATASETS.TEST": "('learning_val',)",
        "DATALOADER.NUM_WORKERS": "0",  # the loader's time is part of this process's
        "SOLVER.CHECKPOINT_PERIOD": "1000000",
    }

    def prepare(folder: Path, iterations: int, period: int) -> Any:
        last = {"OUTPUT_DIR": folder, "SOLVER.MAX_ITER": iterations, "TEST.EVAL_PERIOD": period}
        pairs = {**options, **{key: str(value) for key, value in last.items()}}
        return prepare_config(str(RECIPES / f"{recipe}.yaml"), [word for pair in pairs.items() for word in pair])

    folder = output / recipe
    iterations = max(int(60 * minutes / time_iteration(prepare(folder, TIMED, 0))), CURVE)
    cfg = prepare(folder / "run", iterations, -(-iterations // CURVE))
    with timing_tests() as tests:
        start = time.process_time()
        results = jobs.run_in_this_process(cfg) or {}
        seconds = time.process_time() - start - sum(tests)
    row = {
        "recipe": recipe,
        "iterations": iterations,
        "minutes": round(seconds / 60, 1),
        "parameters": count_parameters(cfg),
        "results": {name: find_value(results, key) for name, key in METRICS.items()},
        "curve": read_curve(folder / "run/training.jsonl", iterations),
    }
    (folder / "row.json").write_text(json.dumps(row))


@contextmanager
def timing_tests() -> Iterator[list[float]]:
    """The processor time of each evaluation of the trainings inside, in seconds."""
    from segkit.engine.training.parts import TrainerParts

    seconds: list[float] = []
    original = vars(TrainerParts)["test"]  # a class method

    def test(cls: type, *args: Any) -> dict[str, Any]:
        start = time.process_time()
        results: dict[str, Any] = original.__func__(cls, *args)
        seconds.append(time.process_time() - start)
        return results

    TrainerParts.test = classmethod(test)
    try:
        yield seconds
    finally:
        TrainerParts.test = original


def time_iteration(cfg: Any) -> float:
    """Seconds of processor time of one training iteration; infinite for a method without iterations."""
    from segkit.engine.training.trainer import Trainer
    from segkit.structures.architecture_spec import get_architecture_spec

    if get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).training == "grid":
        return float("inf")
    trainer, times = Trainer(cfg), []
    with_step = trainer.run_step

    def run_step() -> None:
        start = time.process_time()
        with_step()
        times.append(time.process_time() - start)

    trainer.run_step = run_step
    trainer.test = lambda *args, **kwargs: {}
    trainer.train()
    return sum(times[WARM:]) / max(len(times) - WARM, 1)


def count_parameters(cfg: Any) -> int:
    from detectron2.modeling import build_model

    return sum(parameter.numel() for parameter in build_model(cfg).parameters())


def find_value(results: dict[str, Any], key: str) -> float | None:
    group, _, name = key.partition("/")
    return results.get(group, {}).get(name)


def read_curve(path: Path, iterations: int) -> list[dict[str, float]]:
    """The share of the budget and the metrics of each evaluation."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    points = []
    for line in lines:
        values = {name: line[key] for name, key in METRICS.items() if key in line}
        if values:
            points.append({"share": min((line["iteration"] + 1) / iterations, 1.0), **values})
    return points


def format_row(row: dict[str, Any]) -> str:
    values = ["" if row["results"][name] is None else f"{row['results'][name]:.1f}" for name in METRICS]
    iterations = str(row["iterations"]) if row["parameters"] else "–"
    parts = [row["recipe"], f"{row['parameters'] / 1e6:.1f}", iterations, f"{row['minutes']:.1f}", *values]
    return f"| {' | '.join(parts)} |"


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    titles = ["recipe", "million parameters", "iterations", "minutes", *METRICS]
    return "\n".join([f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}", *map(format_row, rows)])


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in METRICS if any(name in point for row in rows for point in row["curve"])]
    figure, axes = plt.subplots(1, max(len(names), 1), figsize=(6 * max(len(names), 1), 4.5), squeeze=False)
    for axis, name in zip(axes[0], names, strict=False):
        for row in rows:
            points = [(point["share"] * 100, point[name]) for point in row["curve"] if name in point]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=row["recipe"])
        axis.set(xlabel="share of the processor time (%)", ylabel=name, ylim=(0, 100))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
