"""From a config file to a config that is checked against its datasets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY

from segkit.config import load_config
from segkit.data.catalog import load_datasets
from segkit.data.class_counts import resolve_class_counts
from segkit.data.dataset import Dataset
from segkit.data.datasets.custom import register_custom
from segkit.data.ground_truth import has_segmentation
from segkit.data.mapper import check_files
from segkit.engine import register
from segkit.evaluation.head_outputs import check_saved_logits
from segkit.structures.architecture_spec import ArchitectureSpec, get_architecture_spec
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


def read_config(config_file: str | Path = "", opts: Sequence[str] = ()) -> CfgNode:
    """Register everything, read the config and register its DATASETS.CUSTOM; without a GPU, MODEL.DEVICE becomes cpu.

    Args:
        config_file: YAML file; "": none.
        opts: KEY VALUE pairs, as on the command line.

    Returns:
        The config.

    Raises:
        ConfigError: the config cannot be read, or names an unknown architecture, or a dataset is wrong.
    """
    register()
    cfg = load_config(config_file, opts)
    register_custom(cfg.DATASETS.CUSTOM)
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        names = ", ".join(sorted(key for key, _ in META_ARCH_REGISTRY))
        raise ConfigError(f"MODEL.META_ARCHITECTURE {name!r} is unknown", remedy=f"choose one of {names}")
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():  # cuda is Detectron2's default
        logger.warning("MODEL.DEVICE is %s, but this machine has no CUDA device: running on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def prepare_config(
    config_file: str | Path = "", opts: Sequence[str] = (), *, train: bool = True, check: bool = True
) -> CfgNode:
    """Read a config, load and check its datasets, and set its class counts.

    Args:
        config_file: YAML file; "": none.
        opts: KEY VALUE pairs, as on the command line.
        train: the training datasets are needed.
        check: decode DATASETS.CHECK_IMAGES images of each dataset.

    Returns:
        The config, frozen.

    Raises:
        ConfigError: the config cannot be run; raised before a model is built.
        DatasetError: files of a dataset are missing or contradict each other.
    """
    cfg = read_config(config_file, opts)
    names = [*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]
    datasets = load_datasets(names)
    resolve_class_counts(cfg, datasets[0])
    spec = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE)
    if cfg.TEST.SAVE_HEADS and spec.postprocessing == "fusion":
        check_saved_logits(cfg)
    if train:
        _check_targets(spec, datasets[: len(cfg.DATASETS.TRAIN)])
    if check:
        for dataset in {d.name: d for d in datasets}.values():
            checked, labelled = check_files(dataset, cfg.DATASETS.CHECK_IMAGES)
            logger.info("%s: %d images, %d of them decoded and checked", dataset.name, len(dataset.records), checked)
            if train and dataset.name in cfg.DATASETS.TRAIN and checked and not labelled:
                problem = f"expected images with labels to train on, got {checked} of {dataset.name} without any"
                raise ConfigError(problem, where="DATASETS.TRAIN", remedy="name a split that is labelled")
    cfg.freeze()
    return cfg


def _check_targets(spec: ArchitectureSpec, datasets: list[Dataset]) -> None:
    """Raise ConfigError if a training dataset lacks the semantic labels that the architecture needs."""
    for dataset in datasets:
        semantic = has_segmentation(dataset.records[0]) or "sem_seg_file_name" in dataset.records[0]
        if spec.needs_targets and "semantic" in spec.targets and not semantic:
            problem = f"dataset {dataset.name} has no semantic labels, which {spec.name} needs"
            remedy = "name a panoptic dataset, or set MODEL.META_ARCHITECTURE to GeneralizedRCNN"
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy=remedy)
