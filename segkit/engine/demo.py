"""The demonstration: generated scenes, training, evaluation on unseen scenes, export, images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from segkit.data.catalog import load_dataset
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import read_segmentation
from segkit.data.mapper import read_image
from segkit.data.toy import dataset as toy
from segkit.engine import jobs
from segkit.engine.setup import prepare_config
from segkit.formats import coco, png
from segkit.report import draw_image_grid, draw_panoptic, metrics_table, write_page
from segkit.report.palette import choose_colors
from segkit.report.panoptic_analysis import budget_table, build_budget_rows
from segkit.utils.files import load_json
from segkit.utils.progress import progress_bar

SPLITS = {"train": (800, 1), "val": (100, 2)}  # split: (scenes, seed)
GRID_SCENES, SCENES_PER_ROW = 8, 2
# Files and folders that the demo leaves, the most interesting last.
OUTPUTS = ["data", "model_final.pth"]
OUTPUTS += [f"inference/demo_val/{name}" for name in ("coco_instances_results.json", "panoptic.json", "panoptic")]
OUTPUTS += ["report.html", "grid.png", "metrics.json"]
COLUMNS = ("input", "ground truth", "prediction")  # of one scene


def run_demo(config_file: Path, output: Path, opts: Sequence[str] = ()) -> dict[str, Any]:
    """Generate toy scenes below `output`, train on some, evaluate on others, draw; print a table and the paths.

    Args:
        config_file: path of the YAML file.
        output: folder for all files.
        opts: KEY VALUE pairs that override the config file.

    Returns:
        The results, which are also in `output`/metrics.json.
    """
    datasets = _write_scenes(output / "data")
    options = {
        "OUTPUT_DIR": str(output),
        "DATASETS.CUSTOM": str(datasets),
        "DATASETS.TRAIN": "('demo_train',)",
        "DATASETS.TEST": "('demo_val',)",
    }
    cfg = prepare_config(config_file, [*chain(*options.items()), *opts])
    results = jobs.run_in_this_process(cfg) or {}
    dataset, exports = load_dataset("demo_val"), output / "inference" / "demo_val"
    grid = draw_image_grid(_draw_rows(dataset, exports), [*COLUMNS * SCENES_PER_ROW])
    png.write(output / "grid.png", grid)
    budget = load_json(exports / "panoptic_analysis.json")["error_budget"]
    tables = {**results, "error_budget": {"kind of error": build_budget_rows(budget)}}
    images = [(", ".join(COLUMNS), grid)]
    write_page(output / "report.html", "segkit demo", tables, images, categories=dataset.categories)
    console = Console()
    console.print(metrics_table(results))
    console.print(budget_table(budget))
    for name in OUTPUTS:
        console.print(str(output / name), soft_wrap=True)
    return results


def _write_scenes(folder: Path) -> list[dict[str, str]]:
    """Generate the scenes of all splits; their entries of DATASETS.CUSTOM."""
    entries = []
    for split, (images, seed) in SPLITS.items():
        with progress_bar(f"{split} scenes") as progress:
            toy.write_dataset(folder / split, images, seed, overwrite=True, progress=progress)
        root = str(folder / split / "panoptic")
        entries.append({"name": f"demo_{split}", "panoptic_json": f"{root}.json", "panoptic_root": root})
    return entries


def _draw_rows(dataset: Dataset, exports: Path) -> list[list[np.ndarray]]:
    """Input, ground truth and prediction of scenes, in rows; the predictions are read back from the exported files."""
    predictions = {record.image_id: record for record in coco.read_panoptic(exports / "panoptic.json").records}
    scenes = []
    for record in dataset.records[:GRID_SCENES]:
        image = read_image(record, "RGB")
        predicted = predictions[record["image_id"]]
        png_path = exports / "panoptic" / predicted.png_name
        prediction = coco.read_segmentation(png_path, predicted.segments_info, dataset.categories)
        ground_truth = read_segmentation(record, dataset.categories)
        scenes.append((image, ground_truth, prediction))
    colors = choose_colors(
        (s for _, *maps in scenes for segmentation in maps for s in segmentation.segments), dataset.categories
    )
    images: list[np.ndarray] = []
    for image, *segmentations in scenes:
        images += [image, *(draw_panoptic(image, s, dataset.categories, colors=colors) for s in segmentations)]
    width = len(COLUMNS) * SCENES_PER_ROW
    return [images[start : start + width] for start in range(0, len(images), width)]
