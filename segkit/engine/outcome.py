"""What a run leaves for its user: a page of the results, and at the end a table and the paths on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from segkit.data.catalog import load_dataset
from segkit.engine.checkpoints.newest import BEST_WEIGHTS, FINAL_WEIGHTS
from segkit.evaluation.samples import COLUMNS
from segkit.formats.image_io import read_image
from segkit.report import metrics_table, write_page
from segkit.report.panoptic_analysis import budget_table, build_budget_rows
from segkit.utils.config_files import RUN_CONFIG
from segkit.utils.console import open_console
from segkit.utils.errors import ConfigError
from segkit.utils.files import convert_write_errors, load_json

logger = logging.getLogger(__name__)

GRID, PAGE, METRICS, ANALYSIS = "grid.png", "report.html", "metrics.json", "panoptic_analysis.json"
# Files of a run, and of each dataset, the most interesting last.
RUN_FILES = ("log.txt", RUN_CONFIG, BEST_WEIGHTS, FINAL_WEIGHTS)
EXPORTS = ("coco_instances_results.json", "panoptic.json", "panoptic", "volumes")
RESULTS = (PAGE, GRID, METRICS)


def get_exports_folder(cfg: CfgNode, name: str) -> Path:
    """Get the folder of a dataset's exports.

    Args:
        cfg: the run's config.
        name: one of DATASETS.TEST.

    Returns:
        OUTPUT_DIR/inference/<name>.
    """
    return Path(cfg.OUTPUT_DIR) / "inference" / name


def get_report_folder(cfg: CfgNode, name: str) -> Path:
    """Get the folder of a dataset's page and grid.

    Args:
        cfg: the run's config.
        name: one of DATASETS.TEST.

    Returns:
        OUTPUT_DIR if there is one test dataset, otherwise the folder of its exports.
    """
    return Path(cfg.OUTPUT_DIR) if len(cfg.DATASETS.TEST) == 1 else get_exports_folder(cfg, name)


def write_report(cfg: CfgNode, name: str, results: Mapping[str, Any]) -> None:
    """Write the page of a dataset's results, with the grid that the evaluation has drawn.

    Args:
        cfg: the run's config.
        name: one of DATASETS.TEST.
        results: of this dataset.

    Raises:
        DatasetError: the page cannot be written.
    """
    folder, tables = get_report_folder(cfg, name), {**results}
    if (budget := _read_budget(cfg, name, results)) is not None:
        tables["error_budget"] = {"kind of error": build_budget_rows(budget)}
    grid = folder / GRID
    images = [(", ".join(COLUMNS), read_image(grid))] if grid.is_file() else []
    with convert_write_errors(folder / PAGE):
        categories = load_dataset(name).categories
        write_page(folder / PAGE, f"segkit: {name}", tables, images, categories=categories)


def print_outcome(cfg: CfgNode, results: Mapping[str, Any] | None, *, trained: bool) -> None:
    """Print a table of each dataset's metrics, and the paths of the files.

    Args:
        cfg: the run's config.
        results: what `Trainer.test` returned, for one dataset or by dataset; None or empty: no evaluation.
        trained: the run has trained a model.
    """
    console, output = open_console(), Path(cfg.OUTPUT_DIR)
    paths = [output / name for name in RUN_FILES[: len(RUN_FILES) if trained else 2]]
    names = cfg.DATASETS.TEST if results else ()
    for name in names:
        dataset_results = results if len(names) == 1 else (results or {})[name]
        if len(names) > 1:
            console.print(name, markup=False)
        console.print(metrics_table(dataset_results or {}))
        if (budget := _read_budget(cfg, name, dataset_results or {})) is not None:
            console.print(budget_table(budget))
        if cfg.TEST.EXPORT:
            paths += [get_exports_folder(cfg, name) / file for file in EXPORTS]
            paths += [get_report_folder(cfg, name) / file for file in RESULTS]
    if (not cfg.TEST.EXPORT and names) or len(names) > 1:
        paths.append(output / METRICS)
    for path in paths:
        if path.exists():
            console.print(str(path), soft_wrap=True, markup=False, highlight=False)


def check_expected_results(cfg: CfgNode, results: Mapping[str, Any] | None) -> None:
    """Compare results with TEST.EXPECTED_RESULTS: a list of [task, metric, value, tolerance].

    Args:
        cfg: the run's config.
        results: see `print_outcome`; of several datasets, one has to have the expected results.

    Raises:
        ConfigError: a metric is missing, undefined or outside of its tolerance.
    """
    expected_results = cfg.TEST.EXPECTED_RESULTS
    if not results:
        if expected_results:
            logger.warning("TEST.EXPECTED_RESULTS is not compared with anything: nothing was evaluated")
        return
    tables = [results] if len(cfg.DATASETS.TEST) == 1 else [*results.values()]
    problems = []
    for task, metric, expected, tolerance in expected_results:
        values = [table.get(task, {}).get(metric) for table in tables]
        if not any(value is not None and abs(value - expected) <= tolerance for value in values):
            got = ", ".join("nothing" if value is None else f"{value:.2f}" for value in values)
            problems.append(f"expected {task} {metric} {expected} +- {tolerance}, got {got}")
    if problems:
        remedy = "if the data, schedule or weights differ on purpose, set TEST.EXPECTED_RESULTS []"
        raise ConfigError(", ".join(problems), where="TEST.EXPECTED_RESULTS", remedy=remedy)


def _read_budget(cfg: CfgNode, name: str, results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What each kind of error costs; None if this evaluation has not computed it."""
    path = get_exports_folder(cfg, name) / ANALYSIS
    if not cfg.TEST.EXPORT or "panoptic_seg" not in results or not path.is_file():
        return None
    budget: Mapping[str, Any] = load_json(path)["error_budget"]
    return budget
