#!/usr/bin/env python3
"""What ImageNet weights are worth on 100 images: the small COCO recipe from a package's weights, and from scratch.

    DETECTRON2_DATASETS=... python benchmarks/pretraining.py [--iterations 150] [--seeds 1 2 3] [--jobs 2]

COCO's 133 classes are merged into the 27 supercategories, which 100 images can teach. Both networks train for equally
many iterations on the same batches. Prints PQ and mIoU with the paired 95 % interval over the validation images of each
seed, and draws the losses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "coco/panoptic_rcnn_EfficientNetLite0_FPN_quick"
STARTS = {"scratch": "", "ImageNet": "efficientnet_lite0_pypi"}  # name: MODEL.TIMM.WEIGHTS
SPLITS = ("train2017", "val2017")
METRICS = {"PQ": ("panoptic_seg", "PQ"), "mIoU": ("sem_seg", "mIoU")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, of one thread each")
    parser.add_argument("--output", type=Path, default=Path("output/pretraining"))
    options = parser.parse_args()
    coco = Path(os.environ["DETECTRON2_DATASETS"]) / "coco"
    for split in SPLITS:
        merge_classes(coco, split, options.output / "data")
    runs = [(start, seed) for seed in options.seeds for start in STARTS]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(*run, coco, options), runs))
    print("| seed | metric | scratch | ImageNet | difference | 95 % interval |\n| --- | --- | --- | --- | --- | --- |")
    for seed in options.seeds:
        for row in compare(seed, options.output):
            print(row)
    draw_losses(options.output, options.seeds)


def merge_classes(coco: Path, split: str, folder: Path) -> None:
    """Write a panoptic split whose categories are the supercategories; stuff of one class is one segment again."""
    from segkit.formats.coco import read_id_runs, write_png

    target = folder / f"panoptic_{split}.json"
    if target.exists():
        return
    document = json.loads((coco / f"annotations/panoptic_{split}.json").read_text())
    names = sorted({(-category["isthing"], category["supercategory"]) for category in document["categories"]})
    ids = {name: number for number, (_, name) in enumerate(names, 1)}
    things = {ids[name] for minus_isthing, name in names if minus_isthing}
    merged = {category["id"]: ids[category["supercategory"]] for category in document["categories"]}
    for annotation in document["annotations"]:
        segment_ids = read_id_runs(coco / f"panoptic_{split}" / annotation["file_name"]).to_map()
        first: dict[int, dict[str, Any]] = {}  # stuff class -> its segment
        segments = []
        for segment in annotation["segments_info"]:
            segment["category_id"] = merged[segment["category_id"]]
            if segment["category_id"] in things:
                segments.append(segment)
                continue
            kept = first.setdefault(segment["category_id"], segment)
            if kept is segment:
                segments.append(segment)
            else:
                segment_ids[segment_ids == segment["id"]] = kept["id"]
                kept["area"] += segment["area"]
                kept["bbox"] = join_boxes(kept["bbox"], segment["bbox"])
        annotation["segments_info"] = segments
        write_png(folder / f"panoptic_{split}" / annotation["file_name"], segment_ids)
    document["categories"] = [
        {"id": ids[name], "name": name, "isthing": -minus_isthing} for minus_isthing, name in names
    ]
    target.write_text(json.dumps(document))


def join_boxes(a: Sequence[int], b: Sequence[int]) -> list[int]:
    left, top = min(a[0], b[0]), min(a[1], b[1])
    return [left, top, max(a[0] + a[2], b[0] + b[2]) - left, max(a[1] + a[3], b[1] + b[3]) - top]


def train(start: str, seed: int, coco: Path, options: Any) -> None:
    """Train one network in a process of its own, unless its results exist."""
    folder, data = get_folder(options.output, start, seed), options.output / "data"
    if (folder / "metrics.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "name": f"supercategories_{split}",
            "panoptic_json": str(data / f"panoptic_{split}.json"),
            "panoptic_root": str(data / f"panoptic_{split}"),
            "image_root": str(coco / split),
        }
        for split in SPLITS
    ]
    values = {
        "OUTPUT_DIR": folder,
        "SEED": seed,
        "MODEL.TIMM.WEIGHTS": STARTS[start],
        "DATASETS.CUSTOM": entries,
        "DATASETS.TRAIN": ("supercategories_train2017",),
        "DATASETS.TEST": ("supercategories_val2017",),
        "SOLVER.MAX_ITER": options.iterations,
        "SOLVER.CHECKPOINT_PERIOD": options.iterations,
        "SOLVER.LOG_PERIOD": 5,
        "DATALOADER.NUM_WORKERS": 0,
    }
    command = [sys.executable, "-m", "segkit", "train", "--config-file", RECIPE]
    command += [word for key, value in values.items() for word in (key, str(value))]
    with open(folder / "benchmark.log", "w") as log:
        ran = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if ran.returncode:
        sys.exit(f"the training failed: {folder / 'benchmark.log'}")


def get_folder(output: Path, start: str, seed: int) -> Path:
    return (output / f"{start}_{seed}").resolve()


def compare(seed: int, output: Path) -> list[str]:
    """Rows of the table: both values of each metric, and the interval of their difference."""
    from segkit.cli.main import main as segkit

    folders = [get_folder(output, start, seed) / "inference/supercategories_val2017" for start in STARTS]
    path = output / f"comparison_{seed}.json"
    with redirect_stdout(StringIO()):
        segkit(["compare", *map(str, folders), "--output", str(path)])
    results = json.loads(path.read_text())
    return [format_row(seed, name, results[task], key) for name, (task, key) in METRICS.items()]


def format_row(seed: int, name: str, result: dict[str, Any], key: str) -> str:
    value = result[key]
    interval = f"{value['low']:+.1f} to {value['high']:+.1f}"
    return f"| {seed} | {name} | {value['A']:.1f} | {value['B']:.1f} | {value['difference']:+.1f} | {interval} |"


def draw_losses(output: Path, seeds: Sequence[int]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for start, color in zip(STARTS, ("tab:gray", "tab:blue"), strict=True):
        for seed in seeds:
            lines = (get_folder(output, start, seed) / "training.jsonl").read_text().splitlines()
            points = [
                (line["iteration"], line["total_loss"]) for line in map(json.loads, lines) if "total_loss" in line
            ]
            axis.plot(*zip(*points, strict=True), color=color, label=start if seed == seeds[0] else None)
    axis.set(xlabel="iteration", ylabel="training loss")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(output / "losses.png", dpi=110)
    print(output / "losses.png")


if __name__ == "__main__":
    main()
