"""The training of an architecture without gradients: colours are counted, then each setting of a grid is tried."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.testing import flatten_results_dict
from numpy.typing import NDArray

from segkit.data.catalog import load_datasets
from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import GroundTruth, has_segmentation
from segkit.data.mapper import read_image
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.newest import FINAL_WEIGHTS
from segkit.engine.training.best import AUTO, BestResult
from segkit.engine.training.classes import CategoriesInCheckpoint
from segkit.engine.training.data import build_mapper
from segkit.engine.training.hooks import select_numbers
from segkit.evaluation import build_evaluators
from segkit.formats.coco import paint_annotations
from segkit.formats.derive import relabel
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.progress import track

logger = logging.getLogger(__name__)

NO_CLASS = -1


def tune(cfg: CfgNode, model: Any, check: Callable[[], object] | None = None) -> None:
    """Count the colours of the classes, choose the setting with the best metric, write model_final.pth.

    The colours come from MODEL.CLASSICAL.COLOR_IMAGES images of each training dataset. The metric is TEST.BEST_METRIC,
    for "auto" the first of the dataset: PQ, mask AP, mIoU or Dice. It is computed on MODEL.CLASSICAL.TUNING_IMAGES
    images of the first training dataset. Of equal settings the first is chosen; the defaults are the first of all.
    Every process must call it, for its share of the images.

    Args:
        cfg: config of `prepare_config`.
        model: whose spec says `training="grid"`; it is changed.
        check: called before each image and setting; may raise to end the tuning, as `RunLock.check` does.
    """
    check = check or (lambda: None)
    datasets = load_datasets(cfg.DATASETS.TRAIN)
    categories = datasets[0].categories
    model.eval()
    for dataset in datasets:
        _observe(model, dataset, cfg.MODEL.CLASSICAL.COLOR_IMAGES, cfg.INPUT.FORMAT, check)
    model.color_counts.copy_(sum(counts.to(model.color_counts) for counts in comm.all_gather(model.color_counts.cpu())))
    _choose_setting(cfg, model, datasets[0], check)
    check()
    classes = CategoriesInCheckpoint(categories, cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS, cfg.PLUGINS)
    SafeCheckpointer(model, cfg.OUTPUT_DIR, segkit=classes).save(FINAL_WEIGHTS.partition(".")[0], iteration=0)


def _observe(model: Any, dataset: Dataset, limit: int, image_format: str, check: Callable[[], object]) -> None:
    """Show the model this process's share of the labelled images."""
    ground_truth = GroundTruth(dataset)
    records = _select(dataset.records, limit)[comm.get_rank() :: comm.get_world_size()]
    for record in track(records, "counting colours"):
        check()
        if has_segmentation(record):
            segmentation = ground_truth.read_segmentation(record)
        else:
            size_hw = record["height"], record["width"]
            segmentation = paint_annotations(ground_truth.read_annotations(record), size_hw)
        model.observe(read_image(record, image_format), build_class_map(segmentation, dataset.categories))


def build_class_map(segmentation: PanopticSegmentation, categories: CategorySet) -> NDArray[np.int32]:
    """Number the class of each pixel: the things from 0, then the stuff.

    Args:
        segmentation: with category ids of the dataset.
        categories: the dataset's categories.

    Returns:
        (H, W) int32 classes. Pixels without a segment are -1, or if there is no stuff the number after the things.
    """
    things = len(categories.things)
    rows = {c.category_id: row for row, c in enumerate((*categories.things, *categories.stuff))}
    empty = NO_CLASS if categories.stuff else things
    values = {s.segment_id: rows[s.category_id] + 1 for s in segmentation.segments}
    numbers: NDArray[np.int32] = relabel(segmentation.segment_ids, values, np.int32)
    return np.where(numbers == 0, empty, numbers - 1).astype(np.int32)


def _choose_setting(cfg: CfgNode, model: Any, dataset: Dataset, check: Callable[[], object]) -> None:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.EXPORT = cfg.TEST.SAVE_HEADS = cfg.TEST.BOUNDARY = False
    metric = cfg.TEST.BEST_METRIC or AUTO
    # The first metric is the main one: the others would take their time for nothing.
    metrics = dataset.metrics[:1] if metric == AUTO else dataset.metrics
    dataset = replace(dataset, records=_select(dataset.records, cfg.MODEL.CLASSICAL.TUNING_IMAGES), metrics=metrics)
    mapper: Any = build_mapper(cfg, [dataset], is_train=False)
    samples = [mapper(record) for record in dataset.records[comm.get_rank() :: comm.get_world_size()]]
    settings, best, values = [*model.list_settings()], BestResult(metric, "setting"), {}
    with tempfile.TemporaryDirectory() as folder:
        evaluator = build_evaluators(cfg, dataset, folder)
        for number, setting in enumerate(track(settings, "trying settings"), 1):
            check()
            model.set_options(setting)
            numbers = _evaluate(model, samples, evaluator)
            best.update(number, numbers)
            values[number] = numbers.get(best.name)
    chosen = settings[best.iteration - 1] if best.value is not None else {}
    model.set_options(chosen)
    if best.value is not None:
        text = "%s on %d training images: %.2f with %s, the best of %d settings; %.2f with the defaults"
        first = values[1] if values[1] is not None else float("nan")
        logger.info(text, best.name, len(dataset.records), best.value, model.method, len(settings), first)


def _evaluate(model: Any, samples: Sequence[Mapping[str, Any]], evaluator: DatasetEvaluator) -> dict[str, float]:
    """The metrics over the samples of all processes, the same on each."""
    evaluator.reset()
    with torch.no_grad():
        for sample in samples:
            evaluator.process([sample], model([sample]))
    results = evaluator.evaluate() or {}
    numbers: dict[str, float] = comm.all_gather(flatten_results_dict(select_numbers(results)))[0]
    return numbers


def _select(records: Sequence[Record], limit: int) -> list[Record]:
    """Up to `limit` records, spread evenly."""
    rows = np.unique(np.linspace(0, len(records) - 1, min(limit, len(records))).round().astype(int))
    return [records[row] for row in rows.tolist()]
