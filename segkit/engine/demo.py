"""The demonstration: generated scenes, training, evaluation on unseen scenes, export, images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from detectron2.utils.logger import setup_logger

from segkit.data.toy import dataset as toy
from segkit.engine import jobs
from segkit.engine.setup import prepare_config
from segkit.utils.files import check_output_folder
from segkit.utils.progress import progress_bar
from segkit.utils.terminal import color_logs

SPLITS = {"train": (800, 1), "val": (100, 2)}  # split: (scenes, seed)


def run_demo(config_file: Path, output: Path, opts: Sequence[str] = ()) -> dict[str, Any]:
    """Generate toy scenes below `output`, train on some, evaluate on others, draw; print a table and the paths.

    Args:
        config_file: path of the YAML file.
        output: folder for all files.
        opts: KEY VALUE pairs that override the config file.

    Returns:
        The results, which are also in `output`/metrics.json.
    """
    check_output_folder(output)
    setup_logger(name="segkit")
    color_logs()
    datasets = _write_scenes(output / "data")
    print(output / "data")
    options = {
        "OUTPUT_DIR": str(output),
        "DATASETS.CUSTOM": str(datasets),
        "DATASETS.TRAIN": "('demo_train',)",
        "DATASETS.TEST": "('demo_val',)",
    }
    cfg = prepare_config(config_file, [*chain(*options.items()), *opts])
    return jobs.run_in_this_process(cfg) or {}


def _write_scenes(folder: Path) -> list[dict[str, str]]:
    """Generate the scenes of all splits; their entries of DATASETS.CUSTOM."""
    entries = []
    for split, (images, seed) in SPLITS.items():
        with progress_bar(f"{split} scenes") as progress:
            toy.write_dataset(folder / split, images, seed, overwrite=True, progress=progress)
        root = str(folder / split / "panoptic")
        entries.append({"name": f"demo_{split}", "panoptic_json": f"{root}.json", "panoptic_root": root})
    return entries
