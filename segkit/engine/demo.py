"""The demonstration: generated scenes, training, evaluation on unseen scenes, export, images."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from segkit.data.catalog import load_dataset
from segkit.data.toy import dataset as toy
from segkit.engine import jobs
from segkit.engine.checkpoints.checkpointer import require_weights
from segkit.engine.setup import prepare_config, read_config
from segkit.utils.files import check_output_folder
from segkit.utils.progress import progress_bar
from segkit.utils.terminal import color_logs

SPLITS = {"train": (800, 1), "val": (100, 2)}  # split: (scenes, seed)


def run_demo(config_file: str, output: str | Path, opts: Sequence[str] = ()) -> dict[str, Any]:
    """Generate toy scenes below `output`, train on some, evaluate on others, draw; print a table and the paths.

    Args:
        config_file: YAML file, or name of a recipe.
        output: folder for all files.
        opts: KEY VALUE pairs that override the config file.

    Returns:
        The results, which are also in `output`/metrics.json.
    """
    output = Path(output)
    check_output_folder(output)
    setup_logger(name="segkit")
    color_logs()
    roots = {f"demo_{split}": str(output / "data" / split / "panoptic") for split in SPLITS}
    entries = [{"name": name, "panoptic_json": f"{root}.json", "panoptic_root": root} for name, root in roots.items()]
    options = {
        "OUTPUT_DIR": str(output),
        "DATASETS.CUSTOM": str(entries),
        "DATASETS.TRAIN": "('demo_train',)",
        "DATASETS.TEST": "('demo_val',)",
    }
    pairs = [*chain(*options.items()), *opts]
    _check(read_config(config_file, pairs), roots)
    _write_scenes(output / "data")
    print(output / "data")
    return jobs.run_in_this_process(prepare_config(config_file, pairs)) or {}


def _check(cfg: CfgNode, drawn: Container[str]) -> None:
    """Raise, before scenes are drawn, what can be known without them."""
    check_output_folder(Path(cfg.OUTPUT_DIR))
    if cfg.MODEL.WEIGHTS:
        require_weights(cfg.MODEL.WEIGHTS)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in drawn:
            load_dataset(name)


def _write_scenes(folder: Path) -> None:
    for split, (images, seed) in SPLITS.items():
        with progress_bar(f"{split} scenes") as progress:
            toy.write_dataset(folder / split, images, seed, overwrite=True, progress=progress)
