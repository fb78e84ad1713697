"""Adapters: a metric of ours as a Detectron2 DatasetEvaluator; a dataset names the ones that judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluators

from segkit.data.class_counts import get_thing_channels
from segkit.data.dataset import Dataset
from segkit.evaluation.base import EvaluatorOptions, GroundTruth, ImageEvaluator
from segkit.evaluation.cityscapes import CityscapesInstanceEvaluator
from segkit.evaluation.head_outputs import HeadOutputsEvaluator
from segkit.evaluation.instances import InstanceEvaluator
from segkit.evaluation.panoptic import PanopticEvaluator
from segkit.evaluation.semantic import SemanticEvaluator
from segkit.evaluation.volumes import VolumeEvaluator
from segkit.utils.errors import ConfigError

EVALUATORS: dict[str, type[ImageEvaluator]] = {
    "panoptic_quality": PanopticEvaluator,
    "mask_ap": InstanceEvaluator,
    "semantic_iou": SemanticEvaluator,
    "cityscapes_ap": CityscapesInstanceEvaluator,
    "volume_dice": VolumeEvaluator,
}


def build_evaluators(cfg: Any, dataset: Dataset, output_dir: Path) -> DatasetEvaluators:
    """The evaluators that the dataset declares, writing their exports into output_dir unless TEST.EXPORT is False; and
    the writer of head outputs, if TEST.SAVE_HEADS asks for it."""
    ground_truth = GroundTruth(dataset, get_thing_channels(cfg, dataset))
    options = EvaluatorOptions(export=cfg.TEST.EXPORT, boundary=cfg.TEST.BOUNDARY)
    evaluators = []
    for metric in dataset.metrics:
        if metric not in EVALUATORS:
            raise ConfigError(f"the dataset {dataset.name} names the unknown metric {metric!r}; known: {[*EVALUATORS]}")
        evaluators.append(EVALUATORS[metric](dataset, ground_truth, output_dir, options))
    if cfg.TEST.SAVE_HEADS:
        evaluators.append(
            HeadOutputsEvaluator(dataset, ground_truth, output_dir, options, keep_logits=cfg.TEST.KEEP_LOGITS)
        )
    return DatasetEvaluators(evaluators)
