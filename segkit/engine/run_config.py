"""The config.yaml of a run: usable from any folder, with the weights of the run beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from segkit.data.datasets.custom import list_path_options
from segkit.engine.checkpoints.newest import find_newest_checkpoint
from segkit.utils.bundles import is_bundle
from segkit.utils.config_files import RUN_CONFIG
from segkit.utils.files import replacing


def write_run_config(cfg: CfgNode) -> None:
    """Write OUTPUT_DIR/config.yaml, with absolute paths.

    Args:
        cfg: the run's config.

    Raises:
        DatasetError: the file cannot be written.
    """
    text = with_absolute_paths(cfg).dump()
    with replacing(Path(cfg.OUTPUT_DIR, RUN_CONFIG)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def with_absolute_paths(cfg: CfgNode) -> CfgNode:
    """Make the paths of a config independent of the working directory.

    Args:
        cfg: any config with segkit's keys.

    Returns:
        A copy. Addresses and empty paths stay as they are.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = _make_absolute(cfg.OUTPUT_DIR), _make_absolute(cfg.MODEL.WEIGHTS)
    for key in ("PROPOSAL_FILES_TRAIN", "PROPOSAL_FILES_TEST"):
        cfg.DATASETS[key] = tuple(map(_make_absolute, cfg.DATASETS[key]))
    cfg.DATASETS.CUSTOM = [_with_absolute_options(entry) for entry in cfg.DATASETS.CUSTOM]
    options = cfg.MODEL.PANOPTIC.FUSION.OPTIONS
    if options.get("priors"):  # a file, see PriorityFusion
        options.priors = _make_absolute(options.priors)
    return cfg


def find_trained_weights(config_file: str | Path) -> str:
    """Find the weights that a run has written beside its config.yaml.

    Args:
        config_file: any config file.

    Returns:
        The path of the newest whole checkpoint, see `find_newest_checkpoint`; of a bundle the bundle; "" if this is not
        the config of a run, or there is none.

    Raises:
        CheckpointError: every checkpoint is damaged.
    """
    path = Path(config_file)
    if is_bundle(path):
        return str(path)
    return find_newest_checkpoint(path.parent) if path.name == RUN_CONFIG else ""


def _with_absolute_options(entry: dict[str, Any]) -> dict[str, Any]:
    paths = list_path_options(entry)
    return {key: _make_absolute(value) if key in paths else value for key, value in entry.items()}


def _make_absolute(path: Any) -> Any:
    return os.path.abspath(path) if isinstance(path, (str, Path)) and str(path) and "://" not in str(path) else path
