"""A model as one file: config, weights, classes and preprocessing, see `segkit.utils.bundles`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode

from segkit.engine.checkpoints.bundle_weights import ENTRIES
from segkit.engine.checkpoints.checkpointer import require_weights
from segkit.engine.checkpoints.safetensors_file import ENTRIES as ALL_ENTRIES
from segkit.engine.checkpoints.safetensors_file import dump_safetensors
from segkit.engine.checkpoints.weight_files import read_weight_file
from segkit.engine.export.source import describe_source
from segkit.engine.inference.loading import find_model
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.setup import read_config
from segkit.utils.bundles import CONFIG, DESCRIPTION, VERSION, WEIGHTS, write_bundle
from segkit.utils.errors import CheckpointError, ConfigError

DEVICE = "cuda"  # the CPU if there is no GPU
OUTPUT_DIR = "./output"  # Detectron2's default


def export_bundle(
    source: str | Path, path: str | Path, config_file: str | Path | None = None, options: Sequence[str] = ()
) -> None:
    """Write a model as a bundle; equal models give equal bytes. The model is built to check that its parts fit.

    Args:
        source: weights, the folder of a run, or a config, see `segkit.load`.
        path: file to write.
        config_file: YAML file, or the name of a recipe; None: that beside the weights.
        options: KEY VALUE pairs of the config.

    Raises:
        CheckpointError: there are no weights, or they do not belong to the model, or have a type that safetensors lack.
        ConfigError: there is no config, it cannot be read, or it needs another file.
        OutputError: the file cannot be written.
    """
    weights, config = find_model(source, config_file)
    cfg = read_config(config, [*options, *(["MODEL.WEIGHTS", weights] if weights else [])], train=False)
    cfg.MODEL.DEVICE = "cpu"
    model = SegmentationModel(cfg)
    checkpoint = read_weight_file(require_weights(cfg.MODEL.WEIGHTS))
    tensors = {name: torch.as_tensor(weight) for name, weight in checkpoint["model"].items()}
    description = {
        **describe_source(model),
        "version": VERSION,
        "plugins": [*cfg.PLUGINS],
        ENTRIES: {key: checkpoint[key] for key in ALL_ENTRIES if key in checkpoint and key != "segkit"},
    }
    try:
        content = dump_safetensors({"model": tensors})
        text = json.dumps(description, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    except ValueError as error:
        raise CheckpointError(str(error), where=cfg.MODEL.WEIGHTS) from error
    parts = {CONFIG: _dump_config(_without_places(cfg)), DESCRIPTION: text.encode(), WEIGHTS: content}
    write_bundle(path, parts)


def _dump_config(cfg: CfgNode) -> bytes:
    """YAML without aliases, which depend on the values that share memory."""
    return yaml.safe_dump(json.loads(json.dumps(yaml.safe_load(cfg.dump())))).encode()


def _without_places(cfg: CfgNode) -> CfgNode:
    """A copy that names no file, folder or device of this machine."""
    options: Any = cfg.MODEL.PANOPTIC.FUSION.OPTIONS
    if options.get("priors"):  # see PriorityFusion
        remedy = "leave the option out"
        raise ConfigError("the file of priors has no place in a bundle", where="MODEL.PANOPTIC.FUSION", remedy=remedy)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "", DEVICE, OUTPUT_DIR
    cfg.MODEL.TIMM.WEIGHTS = ""  # that a training starts from
    cfg.DATASETS.CUSTOM = []
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = cfg.DATASETS.PROPOSAL_FILES_TEST = ()
    return cfg
