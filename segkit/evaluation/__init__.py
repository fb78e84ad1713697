"""Adapters: segkit's metrics as Detectron2's DatasetEvaluators; each dataset names its metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluators

from segkit.config import with_segkit_keys
from segkit.data.class_counts import get_thing_channels
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import GroundTruth
from segkit.evaluation.base import EvaluatorOptions, ImageEvaluator
from segkit.evaluation.cityscapes import CityscapesInstanceEvaluator
from segkit.evaluation.head_outputs import HeadOutputsEvaluator
from segkit.evaluation.instances import InstanceEvaluator
from segkit.evaluation.panoptic import PanopticEvaluator
from segkit.evaluation.semantic import SemanticEvaluator
from segkit.evaluation.volumes import VolumeEvaluator
from segkit.modeling import register_models
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

EVALUATORS: dict[str, type[ImageEvaluator]] = {
    "panoptic_quality": PanopticEvaluator,
    "mask_ap": InstanceEvaluator,
    "semantic_iou": SemanticEvaluator,
    "cityscapes_ap": CityscapesInstanceEvaluator,
    "volume_dice": VolumeEvaluator,
}


def build_evaluators(cfg: Any, dataset: Dataset, output_dir: str | Path) -> DatasetEvaluators:
    """Build the evaluators of a dataset's metrics, and of the head outputs if TEST.SAVE_HEADS is set.

    Metrics of outputs that the architecture does not give are left out with a warning.

    Args:
        cfg: a config with segkit's keys.
        dataset: names its metrics.
        output_dir: folder of the exports; none are written if TEST.EXPORT is False.

    Returns:
        The evaluators, each over its own share of the images.

    Raises:
        ConfigError: a metric is unknown or does not suit the dataset, or this has no ground truth.
    """
    dataset.check_ground_truth()
    cfg = with_segkit_keys(cfg)
    ground_truth = GroundTruth(dataset, get_thing_channels(cfg, dataset))
    options = EvaluatorOptions(cfg.TEST.EXPORT, cfg.TEST.BOUNDARY, cfg.TEST.KEEP_LOGITS)
    register_models()  # and the specs of their architectures
    spec = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE)
    for metric in dataset.metrics:
        if metric not in EVALUATORS:
            raise ConfigError(f"the dataset {dataset.name} names the unknown metric {metric!r}; known: {[*EVALUATORS]}")
    kinds = [EVALUATORS[metric] for metric in dataset.metrics]
    if cfg.TEST.SAVE_HEADS:
        kinds.append(HeadOutputsEvaluator)
    evaluators = []
    for kind in kinds:
        evaluator = kind(ground_truth, output_dir, options)
        if evaluator.needs in spec.outputs:
            evaluators.append(evaluator)
        else:
            logger.warning("%s: the model gives no %r", kind.__name__, evaluator.needs)
    return DatasetEvaluators(evaluators)
