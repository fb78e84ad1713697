"""From a config to the loader of a training."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.samplers import RepeatFactorTrainingSampler

from segkit.data.catalog import load_datasets
from segkit.data.dataset import Dataset
from segkit.data.label_counts import list_classes
from segkit.data.mapper import SegkitMapper
from segkit.engine.training.loader import TrainingLoader, count_usable_cpus
from segkit.engine.training.prefetch import DeviceCopy
from segkit.engine.training.seeds import ORDER, build_generator
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

logger = logging.getLogger(__name__)

SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)  # Detectron2's names
REPEAT_FACTOR = "DATASETS.TRAIN_REPEAT_FACTOR"


def build_train_loader(cfg: CfgNode, seed: int) -> TrainingLoader:
    """Build the loader over DATASETS.TRAIN, with segkit's mapper for segkit's datasets.

    DATALOADER.FILTER_EMPTY_ANNOTATIONS is applied here if all records have annotations. Otherwise the mapper applies
    it, since only the map of an image shows whether the image is empty.

    Args:
        cfg: config of `prepare_config`.
        seed: of the run.

    Returns:
        The loader of this process.

    Raises:
        ConfigError: the datasets cannot be mixed, the sampler is unknown, or the batch cannot be shared out.
    """
    datasets = load_datasets(cfg.DATASETS.TRAIN)
    mapper = build_mapper(cfg, datasets, is_train=True) or DatasetMapper(cfg, True)
    groups = _select_records(cfg, datasets)
    records = [record for group in groups for record in group]
    repeats = _compute_repeats(cfg, groups, seed, datasets[0].categories)
    is_cuda = torch.device(cfg.MODEL.DEVICE).type == "cuda" and torch.cuda.is_available()
    return TrainingLoader(
        records,
        mapper,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        parts=cfg.SOLVER.ACCUMULATION_STEPS,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        workers=_log_workers(cfg.DATALOADER.NUM_WORKERS),
        groups_by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        repeats=repeats,
        max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
        timeout_s=cfg.DATALOADER.TIMEOUT_S,
        to_device=DeviceCopy(torch.device("cuda", torch.cuda.current_device())) if is_cuda else None,
    )


def build_mapper(cfg: CfgNode, datasets: Sequence[Dataset], is_train: bool) -> Callable[[Any], Any] | None:
    """Build the mapper of datasets.

    Args:
        cfg: config with segkit's keys.
        datasets: at least one, all of segkit or all of Detectron2.
        is_train: with ground truth and augmentations.

    Returns:
        segkit's mapper; None for the training with Detectron2's datasets, which have Detectron2's mapper.

    Raises:
        ConfigError: the datasets are mixed.
    """
    uses_segkit_mapper = {dataset.uses_segkit_mapper for dataset in datasets}
    if len(uses_segkit_mapper) > 1:
        problem = f"segkit's and Detectron2's datasets cannot be mixed: {[dataset.name for dataset in datasets]}"
        raise ConfigError(problem, where="DATASETS.TRAIN", remedy="use the names that start with segkit_")
    if uses_segkit_mapper == {False} and is_train:
        return None
    return SegkitMapper.from_config(cfg, datasets[0], is_train, *datasets[1:])


def limit_workers(wanted: int) -> int:
    """Limit the worker processes to the processors that the processes of this machine may use.

    Args:
        wanted: DATALOADER.NUM_WORKERS, for each process that trains.

    Returns:
        At most the usable processors, divided among the machine's processes, and at least 1 if any is wanted.
    """
    return min(wanted, max(1, count_usable_cpus() // comm.get_local_size()))


def _log_workers(wanted: int) -> int:
    """Say how many worker processes read, and why they are fewer than wanted; return their number."""
    workers, processes = limit_workers(wanted), comm.get_local_size()
    usable, cpus = count_usable_cpus(), os.cpu_count() or 1
    each = f" for each of the {processes} processes of this machine" if processes > 1 else ""
    text = f"{workers} worker processes read the images{each}" if wanted else "the training reads its images itself"
    if workers < wanted:
        limit = f"{usable} of {cpus}" if usable < cpus else str(cpus)
        reason = " by affinity or control group" if usable < cpus else ""
        text += f", instead of DATALOADER.NUM_WORKERS {wanted}: {limit} processors may be used{reason}"
    logger.info("%s", text)
    return workers


def _select_records(cfg: CfgNode, datasets: Sequence[Dataset]) -> list[list[dict[str, Any]]]:
    """The records of each dataset that are drawn."""
    if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:  # Detectron2 filters and completes these records
        least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        files = cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
        is_filtered = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        return [get_detection_dataset_dicts(cfg.DATASETS.TRAIN, is_filtered, least, files)]
    is_annotated = all("annotations" in dataset.records[0] for dataset in datasets)
    if is_annotated and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        return [filter_images_with_only_crowd_annotations(dataset.records) for dataset in datasets]
    return [dataset.records for dataset in datasets]


def _compute_repeats(
    cfg: CfgNode, groups: Sequence[Sequence[dict[str, Any]]], seed: int, categories: CategorySet
) -> np.ndarray | None:
    """How often each record is drawn in an epoch, by DATALOADER.SAMPLER_TRAIN; None: once."""
    name, count = cfg.DATALOADER.SAMPLER_TRAIN, sum(map(len, groups))
    if name not in SAMPLERS:
        problem = f"DATALOADER.SAMPLER_TRAIN {name!r} is unknown"
        raise ConfigError(problem, remedy=suggest(name, SAMPLERS, f"choose one of {', '.join(SAMPLERS)}"))
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        if not 0 < ratio <= 1:
            raise ConfigError(f"expected a number in (0, 1], got {ratio}", where="DATALOADER.RANDOM_SUBSET_RATIO")
        size = max(1, int(count * ratio))
        repeats = np.zeros(count)
        repeats[build_generator(seed, ORDER).permutation(count)[:size]] = 1
        return repeats
    weights = np.ones(count)
    if name in ("RepeatFactorTrainingSampler", "WeightedCategoryTrainingSampler"):
        weights = np.concatenate([_compute_category_repeats(cfg, group, categories) for group in groups])
    if name.startswith("Weighted") and len(groups) == len(cfg.DATASETS.TRAIN):
        factors = _read_repeat_factors(cfg.DATASETS.TRAIN_REPEAT_FACTOR)
        if unknown := {*factors} - {*cfg.DATASETS.TRAIN}:
            raise ConfigError(f"expected names of DATASETS.TRAIN, got {sorted(unknown)}", where=REPEAT_FACTOR)
        names = cfg.DATASETS.TRAIN
        per_record = [np.full(len(group), factors.get(n, 1.0)) for n, group in zip(names, groups, strict=True)]
        weights = weights * np.concatenate(per_record)
        weights = weights / weights.min() if "Category" in name else weights
    return None if name == "TrainingSampler" else weights


def _read_repeat_factors(pairs: Any) -> dict[str, float]:
    """Dataset -> how often its images are drawn."""
    try:
        factors = {str(name): float(factor) for name, factor in pairs}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected [(dataset, number), ...], got {pairs!r}", where=REPEAT_FACTOR) from error
    if wrong := [factor for factor in factors.values() if not 0 < factor < math.inf]:
        raise ConfigError(f"expected finite numbers above 0, got {wrong}", where=REPEAT_FACTOR)
    return factors


def _compute_category_repeats(cfg: CfgNode, records: Sequence[dict[str, Any]], categories: CategorySet) -> np.ndarray:
    """max(1, sqrt(threshold / share of the images with the class)) of the rarest class of each image."""
    is_listed = all({"annotations", "segments_info"} & record.keys() for record in records)
    listed = [_with_annotations(record) for record in records] if is_listed else _read_classes(records, categories)
    threshold, sqrt = cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.REPEAT_SQRT
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(listed, threshold, sqrt=sqrt)
    return np.asarray(factors, dtype=np.float64)


def _with_annotations(record: dict[str, Any]) -> dict[str, Any]:
    """Panoptic records list their segments, whose classes count too."""
    if "annotations" in record:
        return record
    return {"annotations": [{"category_id": segment["category_id"]} for segment in record["segments_info"]]}


def _read_classes(records: Sequence[dict[str, Any]], categories: CategorySet) -> list[dict[str, Any]]:
    """The classes of records that do not list them; each process reads a share of the maps."""
    text = "DATALOADER.SAMPLER_TRAIN needs the classes of %d images: their labels are read"
    logger.info(text, len(records))
    rank, size = comm.get_rank(), comm.get_world_size()
    shares = comm.all_gather(list_classes(records[rank::size], categories))
    classes = [shares[row % size][row // size] for row in range(len(records))]
    return [{"annotations": [{"category_id": each} for each in sorted(image)]} for image in classes]
