"""The evaluation of a model on the test datasets of its config, with exports and a page."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset

from segkit.config import with_segkit_keys
from segkit.data.catalog import load_dataset
from segkit.data.class_counts import get_thing_channels
from segkit.data.ground_truth import GroundTruth
from segkit.engine.inference_options import faster_inference
from segkit.engine.outcome import GRID, get_exports_folder, get_report_folder, write_report
from segkit.engine.training.data import build_mapper, limit_workers
from segkit.evaluation import build_evaluators as build_dataset_evaluators
from segkit.evaluation.head_outputs import fusing_saved_values
from segkit.evaluation.samples import SampleEvaluator
from segkit.metrics.undefined import NOTES, add_notes
from segkit.report.tables import read_groups
from segkit.utils import files

logger = logging.getLogger(__name__)


def evaluate_model(
    cfg: CfgNode,
    model: torch.nn.Module,
    evaluators: Any = None,
    build_loader: Callable[[CfgNode, str], Any] | None = None,
    build_evaluators: Callable[[CfgNode, str], Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a model on every dataset of DATASETS.TEST; every process must call it for its share of the images.

    Writes OUTPUT_DIR/inference/<dataset>/ (exports and metrics.json) and OUTPUT_DIR/metrics.json; if TEST.EXPORT is set
    also report.html and grid.png, see `get_report_folder`.

    Args:
        cfg: config of `prepare_config`.
        model: with its weights.
        evaluators: evaluators to use instead of those of the config.
        build_loader: (config, dataset name) -> loader; None: `build_test_loader`.
        build_evaluators: (config, dataset name) -> evaluator; None: `build_evaluator`.

    Returns:
        The content of OUTPUT_DIR/metrics.json: Detectron2's dict of results, with `notes` if metrics are undefined
        (`add_notes`), or, for several datasets, a dict of them by dataset name. Empty on other processes than the main
        one.
    """
    cfg = with_segkit_keys(cfg)
    broadcast_buffers(model)
    results: dict[str, Any] = OrderedDict()
    for name in cfg.DATASETS.TEST:
        folder = get_exports_folder(cfg, name)
        evaluator = evaluators or (build_evaluators or build_evaluator)(cfg, name)
        saving = fusing_saved_values(model, cfg.TEST.KEEP_LOGITS) if cfg.TEST.SAVE_HEADS else nullcontext()
        with saving, faster_inference(cfg, model):
            loader = (build_loader or build_test_loader)(cfg, name)
            dataset_results = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            dataset_results = add_notes(dataset_results, load_dataset(name).categories)
            results[name] = dataset_results
            files.dump_json(folder / "metrics.json", dataset_results)
            if cfg.TEST.EXPORT and evaluators is None:
                write_report(cfg, name, dataset_results)
            _log_headlines(name, dataset_results)
    if not comm.is_main_process():
        return {}
    results = next(iter(results.values())) if len(results) == 1 else results
    files.dump_json(Path(cfg.OUTPUT_DIR) / "metrics.json", results)
    return results


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Build the loader of this process's share of a test dataset, one image in a batch.

    Args:
        cfg: config of `prepare_config`.
        dataset_name: one of DATASETS.TEST.

    Returns:
        Detectron2's loader.
    """
    dataset = load_dataset(dataset_name)
    mapper = build_mapper(cfg, [dataset], is_train=False)
    workers = limit_workers(cfg.DATALOADER.NUM_WORKERS)
    return build_detection_test_loader(dataset.records, mapper=mapper, num_workers=workers)


def build_evaluator(cfg: CfgNode, name: str, folder: str | Path | None = None) -> DatasetEvaluator:
    """Build the evaluators of a dataset's metrics, and one that draws some images if files are written.

    Args:
        cfg: config of `prepare_config`.
        name: one of DATASETS.TEST.
        folder: of the exports; None: OUTPUT_DIR/inference/<dataset>.

    Returns:
        All of them as one.
    """
    dataset = load_dataset(name)
    evaluators = build_dataset_evaluators(cfg, dataset, folder or get_exports_folder(cfg, name))
    if not cfg.TEST.EXPORT:
        return evaluators
    ground_truth = GroundTruth(dataset, get_thing_channels(cfg, dataset))
    return DatasetEvaluators([evaluators, SampleEvaluator(ground_truth, get_report_folder(cfg, name) / GRID)])


def broadcast_buffers(model: torch.nn.Module) -> None:
    """Send the running statistics of the main process to the others: only the main process's model is saved.

    Args:
        model: the same on all processes.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _log_headlines(name: str, results: Mapping[str, Any]) -> None:
    for group in read_groups(results):
        headlines = {k: v for k, v in group.headline.items() if isinstance(v, float)}
        text = ", ".join(f"{key} {value:.2f}" for key, value in headlines.items())
        logger.info("%s %s: %s", name, group.task, text or "no metrics")
    for note in results.get(NOTES, ()):
        logger.info("%s: %s", name, note)
