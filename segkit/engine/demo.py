"""The demonstration: generated scenes, training, evaluation on scenes it never saw, export, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from segkit.data.catalog import load_dataset
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import read_segmentation
from segkit.data.mapper import read_image
from segkit.data.toy import dataset as toy
from segkit.engine import train as job
from segkit.engine.setup import prepare_config
from segkit.formats import coco, png
from segkit.report import draw_image_grid, draw_panoptic, metrics_table, write_page
from segkit.report.panoptic_analysis import budget_table, build_budget_rows
from segkit.utils.files import load_json
from segkit.utils.progress import progress_bar

SPLITS = {"train": (800, 1), "val": (100, 2)}  # split: (scenes, seed)
PICTURES, PICTURES_PER_ROW = 8, 2  # scenes in the grid
COLUMNS = ("input", "ground truth", "prediction")


def run_demo(config_file: Path, output: Path, opts: Sequence[str] = ()) -> dict[str, Any]:
    """Make toy scenes below `output`, train on some, judge on others, draw; prints a table and what it wrote.

    opts: KEY VALUE pairs over the config file. Returns the results, which are also in `output`/metrics.json.
    """
    custom = _make_scenes(output / "data")
    cfg = prepare_config(
        config_file,
        [
            *("OUTPUT_DIR", str(output), "DATASETS.CUSTOM", str(custom)),
            *("DATASETS.TRAIN", "('demo_train',)", "DATASETS.TEST", "('demo_val',)"),
            *opts,
        ],
    )
    results = job.run_in_this_process(cfg)
    rows = _pictures(load_dataset("demo_val"), output / "inference" / "demo_val")
    picture = draw_image_grid(rows, [*COLUMNS * PICTURES_PER_ROW])
    png.write(output / "grid.png", picture)
    categories = load_dataset("demo_val").categories
    pictures = [("input, truth, prediction", picture)]
    analysis = load_json(output / "inference" / "demo_val" / "panoptic_analysis.json")
    shown = {**results, "error_budget": {"kind of error": build_budget_rows(analysis["error_budget"])}}
    write_page(output / "report.html", "segkit demo", shown, pictures, categories=categories)
    console = Console()
    console.print(metrics_table(results))
    console.print(budget_table(analysis["error_budget"]))
    for path in written(output):
        console.print(str(path), soft_wrap=True)
    return results


def written(output: Path) -> list[Path]:
    """What the demo leaves below `output`, the most wanted last."""
    exports = output / "inference" / "demo_val"
    return [
        output / "data",
        output / "model_final.pth",
        exports / "coco_instances_results.json",
        exports / "panoptic.json",
        exports / "panoptic",
        output / "report.html",
        output / "grid.png",
        output / "metrics.json",
    ]


def _make_scenes(folder: Path) -> list[dict[str, str]]:
    """The entries of DATASETS.CUSTOM for freshly made scenes."""
    for split, (images, seed) in SPLITS.items():
        with progress_bar(f"{split} scenes") as progress:
            toy.write_dataset(folder / split, images, seed, overwrite=True, progress=progress)
    return [
        {
            "name": f"demo_{split}",
            "panoptic_json": str(folder / split / "panoptic.json"),
            "panoptic_root": str(folder / split / "panoptic"),
        }
        for split in SPLITS
    ]


def _pictures(dataset: Dataset, exports: Path) -> list[list[Any]]:
    """Input, truth and prediction of scenes, in rows; the predictions are read back from the exported files."""
    predicted = coco.read_panoptic(exports / "panoptic.json")
    found = {record.image_id: record for record in predicted.records}
    pictures = []
    for record in dataset.records[:PICTURES]:
        image = read_image(record, "RGB")
        match = found[record["image_id"]]
        prediction = coco.read_segmentation(
            exports / "panoptic" / match.png_name, match.segments_info, dataset.categories
        )
        ground_truth = read_segmentation(record, dataset.categories)
        pictures += [image, *(draw_panoptic(image, s, dataset.categories) for s in (ground_truth, prediction))]
    width = len(COLUMNS) * PICTURES_PER_ROW
    return [pictures[start : start + width] for start in range(0, len(pictures), width)]
