"""From a config file to a config that is checked against its datasets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY

from segkit.config import load_config
from segkit.data.catalog import load_datasets
from segkit.data.class_counts import resolve_class_counts
from segkit.data.class_weights import drop_class_weights, resolve_class_weights
from segkit.data.dataset import Dataset
from segkit.data.datasets.custom import register_custom
from segkit.data.ground_truth import has_segmentation
from segkit.data.input_channels import resolve_input_channels
from segkit.data.label_counts import (
    LabelCounts,
    check_labels,
    count_labels,
    warn_of_absent_classes,
    warn_of_shared_images,
)
from segkit.data.mapper import check_files
from segkit.engine import register
from segkit.engine.run_config import find_trained_weights
from segkit.engine.training.values import check_values
from segkit.evaluation.head_outputs import check_saved_logits
from segkit.structures.architecture_spec import ArchitectureSpec, get_architecture_spec
from segkit.utils.errors import ConfigError
from segkit.utils.files import check_output_folder
from segkit.utils.text import suggest

logger = logging.getLogger(__name__)


def read_config(config_file: str | Path = "", opts: Sequence[str] = (), *, train: bool = True) -> CfgNode:
    """Register everything, read the config and register its DATASETS.CUSTOM; without a GPU, MODEL.DEVICE becomes cpu.

    Args:
        config_file: YAML file, or name of a recipe; "": none.
        opts: KEY VALUE pairs, as on the command line.
        train: the config is for a training. Otherwise, if it is the config.yaml of a run, MODEL.WEIGHTS becomes the
            run's last checkpoint, found beside it, unless `opts` name other weights.

    Returns:
        The config.

    Raises:
        ConfigError: the config cannot be read, or names an unknown architecture or device, or a dataset is wrong.
    """
    register()
    weights = "" if train or "MODEL.WEIGHTS" in opts[::2] else find_trained_weights(config_file)
    cfg = load_config(config_file, ["MODEL.WEIGHTS", weights, *opts] if weights else opts)
    register_custom(cfg.DATASETS.CUSTOM)
    if not train:
        drop_class_weights(cfg)
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        names = sorted(key for key, _ in META_ARCH_REGISTRY)
        remedy = suggest(name, names, f"choose one of {', '.join(names)}")
        raise ConfigError(f"MODEL.META_ARCHITECTURE {name!r} is unknown", remedy=remedy)
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE {cfg.MODEL.DEVICE!r} is unknown", remedy="choose cuda or cpu") from error
    if device.type == "meta":
        raise ConfigError(
            "MODEL.DEVICE 'meta' computes nothing: its tensors have no values", remedy="choose cuda or cpu"
        )
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():  # cuda is Detectron2's default
        logger.warning("MODEL.DEVICE is %s, but this machine has no CUDA device: running on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def prepare_config(
    config_file: str | Path = "", opts: Sequence[str] = (), *, train: bool = True, check: bool = True
) -> CfgNode:
    """Read a config, load and check its datasets, and set its class counts, class weights and input channels.

    Args:
        config_file: YAML file, or name of a recipe; "": none.
        opts: KEY VALUE pairs, as on the command line.
        train: the training datasets are needed; see `read_config`.
        check: decode DATASETS.CHECK_IMAGES images of each dataset.

    Returns:
        The config, frozen.

    Raises:
        ConfigError: the config cannot be run; raised before a model is built.
        DatasetError: files of a dataset are missing or contradict each other, or OUTPUT_DIR cannot be written.
    """
    cfg = read_config(config_file, opts, train=train)
    if train:
        check_values(cfg)
        if cfg.TEST.AUG.ENABLED and cfg.DATASETS.TEST:
            logger.info("a training evaluates without TEST.AUG; segkit train --eval-only uses it")
    if "://" not in cfg.OUTPUT_DIR:  # an address that Detectron2's PathManager knows
        check_output_folder(Path(cfg.OUTPUT_DIR))
    names = [*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]
    datasets = load_datasets(names)
    resolve_class_counts(cfg, datasets[0])
    spec = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE)
    if cfg.TEST.SAVE_HEADS and spec.postprocessing == "fusion":
        check_saved_logits(cfg)
    if train:
        _check_targets(cfg, spec, datasets[: len(cfg.DATASETS.TRAIN)])
    if check:
        first_test = len(cfg.DATASETS.TRAIN) if train else 0
        _check_datasets(cfg, spec, datasets[:first_test], datasets[first_test:])
    training = datasets[: len(cfg.DATASETS.TRAIN)] if train else []
    if train:
        resolve_class_weights(cfg, training)
    resolve_input_channels(cfg, datasets, training)
    cfg.freeze()
    return cfg


def _check_datasets(
    cfg: CfgNode, spec: ArchitectureSpec, training: Sequence[Dataset], testing: Sequence[Dataset]
) -> None:
    """Decode images, count labels, and say what is senseless (ConfigError) or may be a mistake (a warning)."""
    labels: dict[str, LabelCounts] = {}
    for dataset in {d.name: d for d in [*training, *testing]}.values():
        checked, labelled, decoded = check_files(dataset, cfg.DATASETS.CHECK_IMAGES)
        things, stuff = len(dataset.categories.things), len(dataset.categories.stuff)
        text = "%s: %d images, %d of them decoded and checked; %d thing classes, %d stuff classes"
        logger.info(text, dataset.name, len(dataset.records), checked, things, stuff)
        if dataset in training and checked and not labelled:
            problem = f"expected images with labels to train on, got {checked} of {dataset.name} without any"
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy="name a split that is labelled")
        labels[dataset.name] = count_labels(dataset, decoded)
    if training:
        counts = sum((labels[dataset.name] for dataset in training), LabelCounts())
        check_labels(training, counts, spec, filters_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        warn_of_shared_images(training, testing)
    for dataset in testing:
        if dataset not in training:
            warn_of_absent_classes(dataset.name, dataset.categories, labels[dataset.name], spec, "not evaluated")


def _check_targets(cfg: CfgNode, spec: ArchitectureSpec, datasets: Sequence[Dataset]) -> None:
    """Raise ConfigError if a training dataset lacks the semantic labels, masks or things that the model needs."""
    for dataset in datasets:
        annotations: Sequence[Any] = next(
            filter(None, (r["annotations"] for r in dataset.records if "annotations" in r)), []
        )
        has_boxes_only = any("segmentation" not in annotation for annotation in annotations[:1])
        if "instances" in spec.targets and cfg.MODEL.MASK_ON and has_boxes_only:
            problem = f"the annotations of dataset {dataset.name} have no masks, which MODEL.MASK_ON needs"
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy="set MODEL.MASK_ON False to train boxes only")
        semantic = has_segmentation(dataset.records[0]) or "sem_seg_file_name" in dataset.records[0]
        if spec.needs_targets and "semantic" in spec.targets and not semantic:
            problem = f"dataset {dataset.name} has no semantic labels, which {spec.name} needs"
            remedy = "name a panoptic dataset, or set MODEL.META_ARCHITECTURE to GeneralizedRCNN"
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy=remedy)
        if spec.needs_targets and "centers" in spec.targets and not dataset.categories.things:
            problem = f"dataset {dataset.name} has no things, whose centers {spec.name} needs"
            remedy = "name a panoptic dataset, or set MODEL.META_ARCHITECTURE to SemanticSegmentor"
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy=remedy)
